package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/dlnode/dlnode/cmd/dlnode/internal/bench"
	"github.com/dlnode/dlnode/cmd/dlnode/internal/fleet"
	"github.com/dlnode/dlnode/train"
)

// TestLaunchScripts plays sessions in which several processes of this program
// train together, and some of them die.
func TestLaunchScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "launch"),
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup:               isolate,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":   exits,
			"forge":   forge,
			"replace": replace,
			"until":   until,
			"sigkill": sigkill,
			"model":   model,
			"rows":    benchRows,
		},
	})
}

// until DIR STEP [saved] waits until the launch in a run directory has done that
// many steps and, where asked for, one of its nodes has written a checkpoint.
func until(ts *testscript.TestScript, neg bool, args []string) {
	saved := len(args) == 3 && args[2] == "saved"
	if neg || len(args) != 2 && !saved {
		ts.Fatalf("usage: until DIR STEP [saved]")
	}
	dir, step := fleet.Layout(ts.MkAbs(args[0])), uint64(number(ts, args[1]))
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		r, err := fleet.ReadRoster(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		ts.Check(err)
		for _, n := range r.Nodes {
			if s, err := ask(context.Background(), n.GRPC); err == nil && s.Progress.Step >= step && (!saved || s.Checkpoint != "") {
				return
			}
		}
	}
	ts.Fatalf("step %d was not done in time", step)
}

// sigkill DIR NODE kills a node of the launch in a run directory.
func sigkill(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: sigkill DIR NODE")
	}
	r, err := fleet.ReadRoster(fleet.Layout(ts.MkAbs(args[0])))
	ts.Check(err)
	for _, n := range r.Nodes {
		if n.Node == args[1] {
			p, err := os.FindProcess(n.PID)
			ts.Check(err)
			ts.Check(p.Kill())
			return
		}
	}
	ts.Fatalf("%s does not run", args[1])
}

// model NAME keeps the model's SHA-256 of the last command in a variable.
func model(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: model NAME")
	}
	found := regexp.MustCompile(`model SHA-256 +([0-9a-f]{64})`).FindStringSubmatch(ts.ReadFile("stdout"))
	if found == nil {
		ts.Fatalf("no SHA-256 on standard output")
	}
	ts.Setenv(args[0], found[1])
}

// forge FILE STEP FIELD VALUE [sealed] changes a field of the journal's record of
// an update and, where asked for, seals that line and all after it anew, as somebody
// who wants it to be believed would.
func forge(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 4 || len(args) > 5 {
		ts.Fatalf("usage: forge FILE STEP FIELD VALUE [sealed]")
	}
	lines := strings.SplitAfter(ts.ReadFile(args[0]), "\n")
	record := regexp.MustCompile(`"kind":"update".*"step":` + args[1] + `,`)
	field := regexp.MustCompile(`"` + args[2] + `":"?[0-9a-f]+"?`)
	forged, sum := false, make([]byte, 8)
	for i, line := range lines {
		if !forged && record.MatchString(line) {
			lines[i] = field.ReplaceAllString(line, `"`+args[2]+`":`+args[3])
			forged = lines[i] != line
		}
		body, seal, ok := strings.Cut(lines[i], `,"sum":"`)
		switch {
		case !ok: // half a line, or none
		case forged && len(args) == 5:
			h := sha256.Sum256(append(sum, body...))
			sum = h[:8]
			lines[i] = body + `,"sum":"` + hex.EncodeToString(sum) + "\"}\n"
		default:
			var err error
			sum, err = hex.DecodeString(seal[:16])
			ts.Check(err)
		}
	}
	if !forged {
		ts.Fatalf("%s has no %s of step %s", args[0], args[2], args[1])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.Join(lines, "")), 0o644))
}

// stage notes what chaos does.
type stage []string

func (s *stage) Kill(id, why string) error { *s = append(*s, "kill "+id+": "+why); return nil }
func (s *stage) Add(id, why string) error  { *s = append(*s, "add "+id+": "+why); return nil }

func TestChaosKillsTheCoordinatorOnceAndThenBringsAFreshNode(t *testing.T) {
	at := func(step uint64, world int, coordinator string) train.Progress {
		return train.Progress{Step: step, Steps: 100, World: world, Coordinator: coordinator}
	}
	tests := []struct {
		name  string
		chaos chaos
		play  []train.Progress
		want  stage
	}{
		{
			"as meant", chaos{nodes: 3},
			[]train.Progress{at(29, 3, "node-2"), at(31, 3, "node-2"), at(54, 2, "node-1"), at(56, 2, "node-1"), at(90, 3, "node-1")},
			stage{"kill node-2: step 31: SIGKILL for node-2, the coordinator", "add node-4: step 56: a fresh node-4 starts"},
		},
		{
			"not before there is a coordinator, nor somebody to go on", chaos{nodes: 2},
			[]train.Progress{at(60, 2, ""), at(61, 1, "node-1"), at(62, 2, "node-1"), at(62, 1, "node-2")},
			stage{"kill node-1: step 62: SIGKILL for node-1, the coordinator", "add node-3: step 62: a fresh node-3 starts"},
		},
		{
			"a node alone is spared", chaos{nodes: 1},
			[]train.Progress{at(40, 1, "node-1"), at(60, 1, "node-1")},
			stage{"add node-2: step 60: a fresh node-2 starts"},
		},
		{"off", chaos{nodes: 3, off: true}, []train.Progress{at(60, 3, "node-1")}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got stage
			for _, p := range tt.play {
				tt.chaos.watch(&got, p)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestStatusIsReadable(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local)
	s := &train.Status{
		Ready: train.Ready{Node: "node-2", PID: 77, GRPC: "127.0.0.1:41", Trajectory: "0123456789abcdef0123"},
		Job:   "mnist", State: "training", View: "fedcba9876543210fedc", Rate: 18300, Since: now.Add(-65 * time.Second),
		Progress: train.Progress{
			Coordinator: "node-1", Generation: 4, World: 2, Step: 412, Steps: 2110, Epoch: 1, Epochs: 5,
			Values: []train.Value{{Name: "loss", Value: 0.25}},
		},
		Members: []train.MemberStatus{
			{Node: "node-2", Role: "worker", Addr: "127.0.0.1:41", Rank: 1, Transition: 413, Entry: 1, Speed: 9150, Self: true},
			{Node: "node-1", Role: "coordinator", Addr: "127.0.0.1:40", Zone: "a", Rank: 0, Transition: 413, Entry: 1},
		},
		Others: []train.MemberStatus{{Node: "node-3", Role: "joining", Addr: "127.0.0.1:42", Rank: -1}},
		Phases: train.PhaseMillis{Data: 0.09, Read: 0.4, Compute: 1.5, Reduce: 0.75, Update: 0.25, Stall: 2},
		Counters: train.Counters{
			Steps: 413, Views: 4, Lost: 1, Interrupted: 1, Repeats: 2, Checkpoints: 3, BytesIn: 1500, BytesOut: 2500000,
		},
		Events: []train.Event{
			{Time: now.Add(-3 * time.Second), Text: "too old to show"},
			{Time: now.Add(-2 * time.Second), Text: "node-0 \x1b[31mlost"},
			{Time: now.Add(-time.Second), Kind: "checkpoint", Text: "runs/x/412"},
		},
	}
	var got bytes.Buffer
	writeStatus(&got, s, 2, now)
	want := `mnist: training, asked node-2 at 127.0.0.1:41 (process 77, up 1m05s)
trajectory 0123456789abcdef
view fedcba9876543210, generation 4, 2 nodes, coordinator node-1
epoch 1/5, step 412/2110, loss 0.2500, 18.3k samples/s

NODE      ROLE         ADDRESS       ZONE  RANK  TRANSITION  SAMPLES/S  SINCE
node-1    coordinator  127.0.0.1:40  a     0     413         -          generation 1
node-2 *  worker       127.0.0.1:41  -     1     413         9.15k      generation 1
node-3    joining      127.0.0.1:42  -     -     0           -          -

a step here: compute 1.50 ms, reduce 0.75 ms, update 0.25 ms; a checkpoint stops it for 2.00 ms
data here: waited 0.09 ms a step for samples, 3.6 % of it; read for 0.40 ms
counted here: 413 transitions, 4 views, 1 groups lost, 1 attempts interrupted, 2 repeated, 3 checkpoints (0 failed), 1.50kB in, 2.50MB out

03:04:03.000  node-0 ` + "\uFFFD" + `[31mlost
03:04:04.000  checkpoint runs/x/412
`
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// rows FILE N checks what bench allreduce has written: rows that are complete.
func benchRows(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: rows FILE N")
	}
	var r bench.Report
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &r))
	if len(r.Rows) != number(ts, args[1]) || len(r.Workers) != 2 || r.When.IsZero() {
		ts.Fatalf("%d rows of %d workers at %v", len(r.Rows), len(r.Workers), r.When)
	}
	for _, row := range r.Rows {
		if row.World != 2 || row.Ops < 5 || row.MedianUS <= 0 || row.AlgBW <= 0 || row.BusBW != row.AlgBW || row.CPUPerGB <= 0 || row.ShareOfTCP <= 0 || row.ShareOfBus <= 0 {
			ts.Fatalf("%+v", row)
		}
	}
}
