// Command training times training steps of package train against PyTorch, in
// turns, and prints tables in Markdown:
//
//	cd bench && go run ./training -python /usr/bin/python3
//	cd bench && go run ./training -processes 2 -python /usr/bin/python3 -rows mnistcnn
//
// A turn is a fresh process that trains one net for some seconds: this program
// started anew, or a Python with the script beside this file. Each tells when its
// first step was done, how fast it went in each of its windows, and how much
// memory it had.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"time"
)

// config is what the flags say.
type config struct {
	rows     *regexp.Regexp
	pythons  []string
	switches []string
	threads  []int
	rounds   int
	seconds  float64
	tune     float64 // seconds of a trial of a switch
	micro    int     // 0: a thread's share of the batch
	peak     float64 // GFLOP/s of one core; 0: measured
	profiles string  // directory
}

// turn is what a process is asked to do.
type turn struct {
	Net      string   `json:"net"`
	Batch    int      `json:"batch"`
	Threads  int      `json:"threads"`
	Micro    int      `json:"micro,omitempty"`    // dlnode's
	Switches []string `json:"switches,omitempty"` // the peer's
	Samples  int      `json:"samples"`            // in memory
	Seconds  float64  `json:"seconds"`            // of all windows
	Windows  int      `json:"windows"`
	Profile  string   `json:"profile,omitempty"` // file for a CPU profile of the windows
	party
}

// report is what it tells. Times are seconds since 1970.
type report struct {
	Version string    `json:"version"`
	First   float64   `json:"first"` // when the first step was done
	Data    float64   `json:"data"`  // seconds that making up the samples took
	Rates   []float64 `json:"rates"` // samples a second, window by window
	Busy    float64   `json:"busy"`  // CPUs that it had, on average over the windows
	Peak    int64     `json:"peak"`  // bytes resident at most
}

const windows = 5

func main() {
	var c config
	var pythons, switches, threads, rows string
	var processes, batch int
	var plain, places string
	child := flag.String("child", "", "be a turn: its JSON")
	flag.StringVar(&rows, "rows", "", "only rows whose `regexp` matches \"NET, batch N, T threads\", with -processes that matches a net's name")
	flag.StringVar(&pythons, "python", "python3", "interpreters that have torch, separated by commas")
	flag.StringVar(&switches, "switches", strings.Join(allSwitches, ","), "settings of PyTorch to try for each row, and to keep where they are faster")
	flag.StringVar(&threads, "threads", "1,2", "numbers of threads")
	flag.IntVar(&c.rounds, "rounds", 5, "turns of each side")
	flag.Float64Var(&c.seconds, "seconds", 3, "length of a turn, without its start")
	flag.Float64Var(&c.tune, "tune", 1, "length of the trial of a switch")
	flag.IntVar(&c.micro, "microbatch", 0, "dlnode's microbatch; 0 is batch/threads")
	flag.Float64Var(&c.peak, "peak", 0, "GFLOP/s that one core can do; 0 measures it")
	flag.IntVar(&processes, "processes", 0, "compare one process with so many, of one thread each, instead")
	flag.StringVar(&plain, "plain", "", "for -processes: this `program` with plain sums (see ../exactness), in the place of PyTorch")
	flag.StringVar(&places, "places", "", "for -processes: where they run, `COMMAND=ADDRESS,...`, one each, as in \"ip netns exec a=10.0.0.1\"")
	flag.IntVar(&batch, "batch", 128, "global batch for -processes")
	flag.StringVar(&c.profiles, "profile", "", "a `directory` for a CPU profile of each row")
	flag.Parse()
	err := start(&c, *child, rows, pythons, switches, threads)
	switch {
	case err != nil || *child != "":
	case processes > 0:
		err = c.scale(processes, batch, plain, places)
	default:
		err = c.run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "training:", err)
		os.Exit(1)
	}
}

func start(c *config, child, rows, pythons, switches, threads string) (err error) {
	if child != "" {
		return beChild(child)
	}
	if c.rows, err = regexp.Compile(rows); err != nil {
		return fmt.Errorf("-rows: %w", err)
	}
	for word := range words(threads) {
		n := 0
		if _, err := fmt.Sscan(word, &n); err != nil || n < 1 {
			return fmt.Errorf("-threads: %q is no number of threads", word)
		}
		c.threads = append(c.threads, n)
	}
	for word := range words(pythons) {
		c.pythons = append(c.pythons, word)
	}
	for word := range words(switches) {
		c.switches = append(c.switches, word)
	}
	return nil
}

// words yields the parts of a list between commas.
func words(list string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for word := range strings.SplitSeq(list, ",") {
			if word != "" && !yield(word) {
				return
			}
		}
	}
}

func beChild(child string) error {
	var t turn
	if err := json.Unmarshal([]byte(child), &t); err != nil {
		return fmt.Errorf("-child: %w", err)
	}
	r, err := train1(&t)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

func (c *config) run() error {
	if c.peak == 0 {
		c.peak = measurePeak()
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt)
	begun := time.Now()
	var done []*row
	for _, r := range c.all() {
		select {
		case <-stop:
			return c.print(done, begun)
		default:
		}
		if err := c.measure(r); err != nil {
			return fmt.Errorf("%s: %w", r.name(), err)
		}
		done = append(done, r)
	}
	return c.print(done, begun)
}

// all lists the rows that are asked for.
func (c *config) all() (rows []*row) {
	for i := range nets {
		for _, batch := range nets[i].batches {
			for _, threads := range c.threads {
				if r := c.row(&nets[i], batch, threads); c.rows.MatchString(r.name()) {
					rows = append(rows, r)
				}
			}
		}
	}
	return rows
}
