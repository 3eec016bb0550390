package checkpoint_test

import (
	"crypto/sha256"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dlnode/dlnode/checkpoint"
	"github.com/dlnode/dlnode/checkpoint/memfs"
)

var files = []string{"job.json", "data.json", "meta.json", "model.safetensors", "state.safetensors", "manifest.json"}

func TestACheckpointIsWhatItsLayoutSays(t *testing.T) {
	d := memfs.NewDisk()
	want := snapshot(12)
	saved := save(t, open(t, d.Process()), want)
	if saved.Path != pathOf(want) || saved.Kept || saved.Bytes != d.Used() {
		t.Errorf("%+v, want %s with %d bytes", saved, pathOf(want), d.Used())
	}
	sum := func(name string) [32]byte {
		b, err := d.ReadFile(filepath.Join(saved.Path, name))
		if err != nil {
			t.Fatal(err)
		}
		return sha256.Sum256(b)
	}
	if saved.Digest != checkpoint.Digest(want) || saved.Digest != sum("manifest.json") {
		t.Errorf("digest is %x, of the snapshot %x, of the file %x", saved.Digest, checkpoint.Digest(want), sum("manifest.json"))
	}
	if saved.ModelDigest != checkpoint.ModelDigest(want) || saved.ModelDigest != sum("model.safetensors") {
		t.Errorf("model digest is %x", saved.ModelDigest)
	}
	var names []string
	for _, path := range d.Paths() {
		if filepath.Dir(path) == saved.Path {
			names = append(names, filepath.Base(path))
		}
	}
	if want := slices.Sorted(slices.Values(files)); !slices.Equal(names, want) {
		t.Errorf("files are %v, want %v", names, want)
	}
}

// Checkpoints from before data.json, and those of data that have nothing to tell.
func TestAStateThatTellsNothingOfItsDataIsKeptWithoutTheFile(t *testing.T) {
	d := memfs.NewDisk()
	want := snapshot(7)
	want.Data = nil
	saved := save(t, open(t, d.Process()), want)
	if _, err := d.ReadFile(filepath.Join(saved.Path, "data.json")); err == nil {
		t.Error("there is a data.json")
	}
	got, err := open(t, d.Process()).Load(saved.Path)
	if err != nil {
		t.Fatal(err)
	}
	requireSame(t, got, want)
}

func TestLatestIsTheGreatestTransition(t *testing.T) {
	d := diskWith(t, 9, 100, 11)
	if got, skipped := latest(t, d); got != 100 || len(skipped) > 0 {
		t.Errorf("the latest is %d, passed over %v", got, skipped)
	}
}

func TestAnEmptyStoreHasNone(t *testing.T) {
	_, skipped, err := open(t, memfs.NewDisk().Process()).Latest(trajectory('T'))
	if !errors.Is(err, checkpoint.ErrNone) || len(skipped) > 0 {
		t.Errorf("passed over %v, error %v", skipped, err)
	}
	_, _, err = open(t, diskWith(t, 1).Process()).Latest(trajectory('X'))
	if !errors.Is(err, checkpoint.ErrNone) || !strings.Contains(err.Error(), "of trajectory 5800010203040506 in "+dir) {
		t.Errorf("another trajectory: %v", err)
	}
}

func TestEachDamageIsPassedOverAndNamed(t *testing.T) {
	newest := pathOf(snapshot(2))
	for _, name := range files {
		path := filepath.Join(newest, name)
		for complaint, damage := range map[string]func(*memfs.Disk) error{
			"missing": func(d *memfs.Disk) error { return d.Remove(path) },
			"truncated": func(d *memfs.Disk) error {
				b, err := d.ReadFile(path)
				return errors.Join(err, d.Truncate(path, len(b)-1))
			},
			"too long": func(d *memfs.Disk) error {
				b, err := d.ReadFile(path)
				return errors.Join(err, d.WriteFile(path, append(b, '\n')))
			},
			"digest mismatch": func(d *memfs.Disk) error { return d.FlipBit(path, 8*3+1) },
			"unreadable":      func(*memfs.Disk) error { return nil }, // below
		} {
			d := diskWith(t, 1, 2)
			if err := damage(d); err != nil {
				t.Fatal(err)
			}
			p := d.Process()
			if complaint == "unreadable" {
				p.Before = failToOpen(path)
			}
			if name == "manifest.json" && complaint != "missing" && complaint != "unreadable" {
				complaint = "malformed"
			}
			checkFallBack(t, p, newest, name+": "+complaint)
		}
	}
}

var errDisk = errors.New("input/output error")

func failToOpen(path string) func(memfs.Op) error {
	return func(op memfs.Op) error {
		if op.Name == "open" && op.Path == path {
			return errDisk
		}
		return nil
	}
}

// checkFallBack wants transition 1, and the newest told with a reason that begins
// like this.
func checkFallBack(t *testing.T, p *memfs.Process, newest, reason string) {
	t.Helper()
	s := open(t, p)
	got, skipped, err := s.Latest(trajectory('T'))
	if err != nil {
		t.Fatal(err)
	}
	requireSame(t, got, snapshot(1))
	if len(skipped) != 1 || skipped[0].Path != newest || !strings.HasPrefix(skipped[0].Reason, reason) {
		t.Errorf("passed over %+v, want one that begins %q", skipped, reason)
	}
	var damage *checkpoint.Damage
	if err := s.Verify(newest); !errors.As(err, &damage) || damage.Path != newest || !strings.Contains(err.Error(), reason) {
		t.Errorf("Verify = %v", err)
	}
	if _, err := s.Load(newest); !errors.As(err, &damage) {
		t.Errorf("Load = %v", err)
	}
}

// A manifest's numbers are not covered by the digests of the other files; its
// seal covers them.
func TestEveryFlippedBitOfAManifestIsFound(t *testing.T) {
	d := diskWith(t, 1, 2)
	s := open(t, d.Process())
	path := pathOf(snapshot(2))
	file := filepath.Join(path, "manifest.json")
	b, err := d.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for bit := range 8 * len(b) {
		if err := d.FlipBit(file, bit); err != nil {
			t.Fatal(err)
		}
		if s.Verify(path) == nil {
			t.Fatalf("bit %d of byte %d (%q) may be flipped", bit%8, bit/8, b[bit/8])
		}
		if err := d.WriteFile(file, b); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAllDamagedIsNoneWithReasons(t *testing.T) {
	d := diskWith(t, 1, 2)
	for _, transition := range []uint64{1, 2} {
		if err := d.FlipBit(filepath.Join(pathOf(snapshot(transition)), "state.safetensors"), 800); err != nil {
			t.Fatal(err)
		}
	}
	got, skipped, err := open(t, d.Process()).Latest(trajectory('T'))
	if got != nil || len(skipped) != 2 || !errors.Is(err, checkpoint.ErrNone) || !strings.Contains(err.Error(), "2 damaged") {
		t.Errorf("got %v, passed over %v, error %v", got, skipped, err)
	}
}

// A whole checkpoint in the wrong place is not the one of that place.
func TestAMisplacedCheckpointIsNotBelieved(t *testing.T) {
	d := diskWith(t, 1, 2)
	p := d.Process()
	if err := p.Rename(pathOf(snapshot(2)), pathOf(snapshot(3))); err != nil {
		t.Fatal(err)
	}
	got, skipped := latest(t, d)
	if got != 1 || len(skipped) != 1 || skipped[0].Reason != "manifest.json: is of transition 2, not 000000000003" {
		t.Errorf("the latest is %d, passed over %+v", got, skipped)
	}
	entries, err := open(t, p).List()
	if err != nil || len(entries) != 2 || entries[0].Err != nil || entries[1].Err == nil {
		t.Errorf("List = %+v, %v", entries, err)
	}
	loaded, err := open(t, p).Load(pathOf(snapshot(3)))
	if err != nil {
		t.Fatalf("wherever it is, it can be loaded by its path: %v", err)
	}
	requireSame(t, loaded, snapshot(2))
}

// The directory's name holds a part of T only; the manifest holds all of it.
func TestTrajectoriesThatBeginAlikeAreToldApart(t *testing.T) {
	d := diskWith(t, 1)
	other := trajectory('T')
	other[31]++
	_, skipped, err := open(t, d.Process()).Latest(other)
	if !errors.Is(err, checkpoint.ErrNone) || len(skipped) != 1 || !strings.Contains(skipped[0].Reason, "is of trajectory 54000102") {
		t.Errorf("passed over %+v, error %v", skipped, err)
	}
}

func TestTheSameStateIsKeptAndADamagedOneReplaced(t *testing.T) {
	d := diskWith(t, 1)
	p := d.Process()
	writes := 0
	p.Before = func(op memfs.Op) error {
		if op.Name == "write" {
			writes++
		}
		return nil
	}
	s := open(t, p)
	if saved := save(t, s, snapshot(1)); !saved.Kept || writes > 0 || saved.Digest != checkpoint.Digest(snapshot(1)) {
		t.Errorf("%+v after %d writes", saved, writes)
	}
	for _, name := range files {
		if err := d.Remove(filepath.Join(pathOf(snapshot(1)), name)); err != nil {
			t.Fatal(err)
		}
		if saved := save(t, s, snapshot(1)); saved.Kept {
			t.Errorf("%s was missing, and the checkpoint kept", name)
		}
		if got, _ := latest(t, d); got != 1 || len(leftovers(d)) > 0 {
			t.Errorf("%s: the latest is %d, left over %v", name, got, leftovers(d))
		}
	}
}

func TestAnotherStateOfTheSameTransitionIsAConflict(t *testing.T) {
	d := diskWith(t, 1)
	other := snapshot(1)
	other.Model[0].Data[1]++
	_, err := open(t, d.Process()).Save(other)
	if !errors.Is(err, checkpoint.ErrConflict) || !strings.Contains(err.Error(), pathOf(other)) {
		t.Errorf("error is %v", err)
	}
	if got, _ := latest(t, d); got != 1 {
		t.Errorf("the latest is %d", got)
	}
}

// The same when the other one appears while this one is being written.
func TestAConflictIsSeenAtTheRename(t *testing.T) {
	d := memfs.NewDisk()
	p, other := d.Process(), snapshot(1)
	other.Step++
	p.Before = func(op memfs.Op) error {
		if op.Name == "rename" {
			save(t, open(t, d.Process()), snapshot(1))
		}
		return nil
	}
	if _, err := open(t, p).Save(other); !errors.Is(err, checkpoint.ErrConflict) {
		t.Errorf("error is %v", err)
	}
	if got, _ := latest(t, d); got != 1 || len(leftovers(d)) > 0 {
		t.Errorf("the latest is %d, left over %v", got, leftovers(d))
	}
}

func TestPruneKeepsTheNewestUpToTheOneSaved(t *testing.T) {
	d := diskWith(t, 1, 2, 3, 4, 5)
	removed, err := open(t, d.Process()).Prune(trajectory('T'), 4, 2)
	want := []string{pathOf(snapshot(1)), pathOf(snapshot(2))}
	if err != nil || !slices.Equal(removed, want) || len(leftovers(d)) > 0 {
		t.Errorf("removed %v, %v; left over %v", removed, err, leftovers(d))
	}
	if got := transitionsOn(t, d); !slices.Equal(got, []uint64{3, 4, 5}) {
		t.Errorf("there are %v", got)
	}
}

func TestPruneLeavesOtherTrajectoriesAlone(t *testing.T) {
	d := diskWith(t, 5)
	s := open(t, d.Process())
	other := snapshot(1)
	other.Trajectory = trajectory('X')
	save(t, s, other)
	if removed, err := s.Prune(trajectory('T'), 5, 1); err != nil || len(removed) > 0 {
		t.Errorf("removed %v, %v", removed, err)
	}
}

// The reader of transition 1 is in the middle of it when everything but 3 should
// go; the next call takes it.
func TestPruneNeverGoesUnderAReader(t *testing.T) {
	d := diskWith(t, 1, 2, 3)
	p := d.Process()
	s := open(t, p)
	pruned := false
	p.Before = func(op memfs.Op) error {
		if op.Name == "open" && filepath.Base(op.Path) == "state.safetensors" && !pruned {
			pruned = true
			removed, err := s.Prune(trajectory('T'), 3, 1)
			if want := []string{pathOf(snapshot(2))}; err != nil || !slices.Equal(removed, want) {
				t.Errorf("removed %v, %v; want %v", removed, err, want)
			}
		}
		return nil
	}
	got, err := s.Load(pathOf(snapshot(1)) + "/")
	if err != nil {
		t.Fatal(err)
	}
	requireSame(t, got, snapshot(1))
	if removed, err := s.Prune(trajectory('T'), 3, 1); err != nil || len(removed) != 1 {
		t.Errorf("afterwards: removed %v, %v", removed, err)
	}
}

// Another process's Prune knows nothing of our readers. What it takes from under
// them has been overtaken by something newer.
func TestWhatAnotherProcessPrunesIsLookedForAgain(t *testing.T) {
	for _, file := range []string{"manifest.json", "model.safetensors"} {
		d := diskWith(t, 1)
		p, other := d.Process(), open(t, d.Process())
		p.Before = func(op memfs.Op) error {
			if op.Name == "open" && op.Path == filepath.Join(pathOf(snapshot(1)), file) {
				save(t, other, snapshot(2))
				_, err := other.Prune(trajectory('T'), 2, 1)
				return err
			}
			return nil
		}
		got, skipped, err := open(t, p).Latest(trajectory('T'))
		if err != nil || len(skipped) > 0 {
			t.Fatalf("%s: passed over %v, error %v", file, skipped, err)
		}
		requireSame(t, got, snapshot(2))
	}
}

func transitionsOn(t *testing.T, d *memfs.Disk) []uint64 {
	t.Helper()
	entries, err := open(t, d.Process()).List()
	if err != nil {
		t.Fatal(err)
	}
	var ts []uint64
	for _, e := range entries {
		ts = append(ts, e.Transition)
	}
	return ts
}

func TestListTellsWhatIsThere(t *testing.T) {
	d := diskWith(t, 11, 2)
	if err := d.Truncate(filepath.Join(pathOf(snapshot(11)), "manifest.json"), 50); err != nil {
		t.Fatal(err)
	}
	entries, err := open(t, d.Process()).List()
	if err != nil || len(entries) != 2 {
		t.Fatalf("%+v, %v", entries, err)
	}
	good, bad := entries[0], entries[1]
	if good.Err != nil || good.Path != pathOf(snapshot(2)) || good.Manifest.Digest() != checkpoint.Digest(snapshot(2)) {
		t.Errorf("%+v", good)
	}
	if bad.Err == nil || bad.Transition != 11 || !strings.Contains(bad.Err.Error(), "000000000011/manifest.json: malformed") {
		t.Errorf("%+v", bad)
	}
}

func TestTrajectoriesTellTheirJobs(t *testing.T) {
	d := diskWith(t, 1, 2)
	s := open(t, d.Process())
	other := snapshot(7)
	other.Trajectory, other.Job = trajectory('X'), []byte(`{"seed":2}`)
	save(t, s, other)
	// The newest of the first has a damaged job: the one before tells it as well.
	if err := d.FlipBit(filepath.Join(pathOf(snapshot(2)), "job.json"), 9); err != nil {
		t.Fatal(err)
	}
	got, err := s.Trajectories()
	if err != nil || len(got) != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	if got[0].ID != trajectory('T') || string(got[0].Job) != `{"seed":1}` || got[0].Newest.Transition != 1 {
		t.Errorf("%+v", got[0])
	}
	if got[1].ID != trajectory('X') || string(got[1].Job) != `{"seed":2}` || got[1].Newest.Transition != 7 {
		t.Errorf("%+v", got[1])
	}
}

func TestForeignNamesAreLeftAlone(t *testing.T) {
	d := diskWith(t, 1, 2, 3)
	p := d.Process()
	parent := filepath.Dir(pathOf(snapshot(1)))
	foreign := []string{
		filepath.Join(dir, "notes"), filepath.Join(dir, "5400010203040506.bak"), filepath.Join(dir, "540001020304050G"),
		filepath.Join(parent, "1"), filepath.Join(parent, "000000000002 (copy)"), filepath.Join(parent, "+00000000001"),
	}
	for _, path := range foreign {
		if err := p.Mkdir(path); err != nil {
			t.Fatal(err)
		}
	}
	s := open(t, p)
	if err := s.Sweep(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Prune(trajectory('T'), 3, 1); err != nil {
		t.Fatal(err)
	}
	for _, path := range foreign {
		if !slices.Contains(d.Paths(), path) {
			t.Errorf("%s is gone", path)
		}
	}
	if got := transitionsOn(t, d); !slices.Equal(got, []uint64{3}) {
		t.Errorf("there are %v", got)
	}
}

func TestAFileInPlaceOfTheStoreIsAnError(t *testing.T) {
	p := memfs.NewDisk().Process()
	f, err := p.Create("/runs")
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := checkpoint.Open(p, "/runs"); err == nil || !strings.Contains(err.Error(), "checkpoint: open /runs") {
		t.Errorf("error is %v", err)
	}
}

func TestTransitionsMayOutgrowTheirDigits(t *testing.T) {
	d := memfs.NewDisk()
	s := open(t, d.Process())
	big := snapshot(1)
	big.Transition = 1<<64 - 1
	save(t, s, big)
	save(t, s, snapshot(999999999999))
	got, _, err := s.Latest(trajectory('T'))
	if err != nil {
		t.Fatal(err)
	}
	requireSame(t, got, big)
}
