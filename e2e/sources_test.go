//go:build unix

package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// study is a case study, cut short: the job of an example on the first samples of
// its data.
type study struct {
	name    string
	samples int // of the cut; without -full
	epochs  int
	// data writes the cut into a directory and returns the line of the job file, with
	// %s for the directory.
	data  func(t *testing.T, dir string, n int) string
	cells []string // source,nodes that are trained without -full
}

var studies = []study{
	{"mnist-mlp-deep", 4000, 3, digits, []string{"path,nodes=1", "packed,nodes=2", "web,nodes=3", "peers,nodes=2"}},
	{"mnist-cnn", 700, 2, digits, []string{"path,nodes=2", "packed,nodes=3", "web,nodes=1", "peers,nodes=3"}},
	{"imdb-lstm", 1000, 3, reviews, []string{"path,nodes=3", "packed,nodes=1", "web,nodes=2", "peers,nodes=2"}},
	{"cats-vs-dogs", 60, 2, photos, []string{"packed,nodes=2"}},
	{"cats-vs-dogs-augmented", 60, 2, photos, []string{"peers,nodes=2"}},
}

// larger is how many times more samples a cut has with -full.
const larger = 4

// A source is where nodes have their data from. flags returns those of the i-th of
// some nodes; missing tells that it has nothing but the job file.
type source struct {
	name    string
	flags   func(p *prepared, i int) []string
	missing func(i int) bool
}

var sources = []source{
	{"path", func(*prepared, int) []string { return nil }, func(int) bool { return false }},
	{"packed", func(p *prepared, _ int) []string { return []string{"--data", p.packed} }, func(int) bool { return true }},
	{"web", func(p *prepared, _ int) []string { return []string{"--data", p.url} }, func(int) bool { return true }},
	{"peers", func(_ *prepared, i int) []string {
		if i == 0 {
			return nil
		}
		return []string{"--data", "peers"}
	}, func(i int) bool { return i > 0 }},
}

// Issue: one SHA-256 on each case study for 1, 2 and 3 nodes, with the data from the
// path that the job names, from packed shards, from shards behind a web server and
// from the one node that has them, and with a node killed in between.
func TestWhereverTheDataComeFromThereIsOneHash(t *testing.T) {
	for _, s := range studies {
		t.Run(s.name, func(t *testing.T) {
			p := s.prepare(t)
			for _, from := range sources {
				for nodes := 1; nodes <= 3; nodes++ {
					cell := fmt.Sprintf("%s,nodes=%d", from.name, nodes)
					if from.name == "peers" && nodes == 1 || !*full && !slices.Contains(s.cells, cell) {
						continue // a node alone has no peers
					}
					t.Run(cell, func(t *testing.T) { p.train(t, from, nodes) })
				}
			}
		})
	}
}

// prepared is a study whose data are there in every form.
type prepared struct {
	job
	want   verdict
	cache  string // that the path's data set is decoded into
	packed string
	url    string
	bare   string // text of a job file whose path leads nowhere
}

func (s study) prepare(t *testing.T) *prepared {
	if dataDir() == "" {
		t.Skip("no real data: set DLNODE_TEST_DATA to a directory that holds mnist/*.gz and the two archives")
	}
	text, err := os.ReadFile("../examples/" + s.name + ".yaml")
	if err != nil {
		t.Fatal(err)
	}
	n, dir := s.samples, t.TempDir()
	if *full {
		n *= larger
	}
	line := s.data(t, dir, n)
	job := regexp.MustCompile(`(?m)^data: .*$`).ReplaceAllLiteralString(string(text), "data: {"+line+"}")
	job = regexp.MustCompile(`(?m)^epochs: .*$`).ReplaceAllLiteralString(job, fmt.Sprintf("epochs: %d", s.epochs))
	job += "checkpoint: {every_steps: 4}\n"
	split := 5
	if strings.Contains(job, "split: 0.1") {
		split = 10
	}
	p := &prepared{cache: filepath.Join(dir, "cache"), packed: filepath.Join(dir, "packed")}
	p.job.name, p.samples, p.micro = s.name, n-n/split, 4
	p.yaml, p.bare = strings.ReplaceAll(job, "%s", dir), strings.ReplaceAll(job, "%s", filepath.Join(dir, "nowhere"))

	f := newFleet(t, p.job)
	r := f.start("alone", options{cache: p.cache}).finish()
	p.want = verdict{r.ModelSHA256, r.StateSHA256, r.Step, r.Transition}
	pack := exec.Command(program, "data", "pack", f.jobFile(), p.packed)
	pack.Env = append(os.Environ(), "DLNODE_DATA="+p.cache)
	if out, err := pack.CombinedOutput(); err != nil {
		t.Fatalf("packing: %v\n%s", err, out)
	}
	server := httptest.NewServer(http.FileServer(http.Dir(p.packed)))
	t.Cleanup(server.Close)
	p.url = server.URL
	return p
}

// train trains with data from a source and kills the last node once some steps are
// done; it comes back.
func (p *prepared) train(t *testing.T, from source, nodes int) {
	began := time.Now()
	f := newFleet(t, p.job)
	bare := filepath.Join(f.dir, "bare.yaml")
	if err := os.WriteFile(bare, []byte(p.bare), 0o644); err != nil {
		t.Fatal(err)
	}
	start := func(i, expect int) *process {
		o := options{expect: expect, more: from.flags(p, i), cache: p.cache}
		if from.missing(i) {
			o.job, o.cache = bare, t.TempDir()
		}
		return f.start(fmt.Sprintf("node-%d", i+1), o)
	}
	for i := range nodes {
		start(i, nodes)
	}
	f.reach(p.want.step / 3)
	victim := f.node(fmt.Sprintf("node-%d", nodes))
	victim.kill()
	victim.exit()
	if victim.Told().Result != nil {
		t.Errorf("%s had finished before it was killed", victim.ID)
	}
	start(nodes-1, 0)
	f.finish(p.want)
	if nodes > 1 {
		f.audit(p.want)
	} // else what it did after the last checkpoint it has done twice
	t.Logf("%d steps, model %s, %.1f s", p.want.step, p.want.model[:16], time.Since(began).Seconds())
}

// digits are the first of MNIST's, of both parts.
func digits(t *testing.T, dir string, n int) string {
	for _, part := range []struct {
		name string
		n    int
	}{{"train", n}, {"t10k", n / 10}} {
		for _, file := range []struct {
			name       string
			head, each int
		}{{"images-idx3-ubyte", 16, 28 * 28}, {"labels-idx1-ubyte", 8, 1}} {
			name := part.name + "-" + file.name
			raw := unzipped(t, filepath.Join(dataDir(), "mnist", name+".gz"))
			cut := raw[:file.head+part.n*file.each]
			binary.BigEndian.PutUint32(cut[4:], uint32(part.n))
			if err := os.WriteFile(filepath.Join(dir, name), cut, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	return "idx: {train_images: %s/train-images-idx3-ubyte, train_labels: %s/train-labels-idx1-ubyte, " +
		"test_images: %s/t10k-images-idx3-ubyte, test_labels: %s/t10k-labels-idx1-ubyte, classes: 10}"
}

func unzipped(t *testing.T, path string) []byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() // only read from
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// reviews are the first of IMDb's, as many of each kind.
func reviews(t *testing.T, dir string, n int) string {
	cutArchive(t, "aclImdb_v1_labelled.tar.gz", filepath.Join(dir, "reviews.tar"), map[string]int{"train/neg": n / 2, "train/pos": n / 2, "test/neg": 20, "test/pos": 20})
	return "imdb: {path: %s/reviews.tar}"
}

// photos are the first of the cats and of the dogs.
func photos(t *testing.T, dir string, n int) string {
	cutArchive(t, "dogs-vs-cats-2000.tar", filepath.Join(dir, "photos.tar"), map[string]int{"cats": n / 2, "dogs": n / 2})
	return "cats_vs_dogs: {path: %s/photos.tar}"
}

// cutArchive copies the first files of some directories of an archive, by the ends of
// the directories' names.
func cutArchive(t *testing.T, name, to string, want map[string]int) {
	t.Helper()
	f, err := os.Open(filepath.Join(dataDir(), name))
	if err != nil {
		t.Skipf("no real data: %v", err)
	}
	defer f.Close() // only read from
	var in io.Reader = f
	if strings.HasSuffix(name, ".gz") {
		if in, err = gzip.NewReader(f); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	from, cut := tar.NewReader(in), tar.NewWriter(&out)
	left := 0
	for _, n := range want {
		left += n
	}
	for left > 0 {
		h, err := from.Next()
		if errors.Is(err, io.EOF) {
			t.Fatalf("%s: %d files of %v are missing", name, left, want)
		}
		if err != nil {
			t.Fatal(err)
		}
		for end, n := range want {
			if n == 0 || h.Typeflag != tar.TypeReg || !strings.HasSuffix("/"+path.Dir(h.Name), "/"+end) {
				continue
			}
			want[end]--
			left--
			if err := cut.WriteHeader(h); err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(cut, from); err != nil {
				t.Fatal(err)
			}
			break
		}
	}
	if err := errors.Join(cut.Close(), os.WriteFile(to, out.Bytes(), 0o644)); err != nil {
		t.Fatal(err)
	}
}
