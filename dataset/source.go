package dataset

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const (
	moduleLimit = 2 * time.Minute  // for the go command in all: it retries without an end in sight
	mirrorStall = 20 * time.Second // without a byte, headers included
)

// moduleSource takes files out of a Go module, which the user's go command
// fetches through whatever module proxy and credentials the user has set up.
type moduleSource struct {
	module Module
	limit  time.Duration

	asked bool   // the go command has been run; dir and err are its answer
	dir   string // where the module lies
	err   error
}

func (m *moduleSource) String() string {
	return "go module " + m.module.Path + "@" + m.module.Version
}

func (m *moduleSource) open(ctx context.Context, f File, _ int64) (io.ReadCloser, int64, error) {
	if !m.asked {
		m.dir, m.err = m.download(ctx)
		m.asked = true
	}
	if m.err != nil {
		return nil, 0, m.err
	}
	in, err := os.Open(filepath.Join(m.dir, filepath.FromSlash(m.module.Dir), f.Name))
	return in, 0, err
}

func (m *moduleSource) close() {}

// download returns the directory of the module in the module cache.
func (m *moduleSource) download(ctx context.Context) (dir string, err error) {
	goTool, err := exec.LookPath("go")
	if err != nil {
		return "", errors.New("no go command on the PATH")
	}
	// An empty directory of our own, because the go command would read a go.mod or
	// go.work at or above the one we were started in.
	work, err := os.MkdirTemp("", "dlnode-module-")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	ctx, cancel := context.WithTimeoutCause(ctx, m.limit, fmt.Errorf("go mod download took more than %v", m.limit))
	defer cancel()
	cmd := exec.CommandContext(ctx, goTool, "mod", "download", "-json", m.module.Path+"@"+m.module.Version)
	cmd.Dir = work
	cmd.Env = moduleEnv(cmd.Environ())
	cmd.WaitDelay = 2 * time.Second // its children (git) may hold the pipes open after it is killed
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	return parseModule(stdout.Bytes(), stderr.String(), err)
}

// parseModule reads the answer of go mod download -json. Failures it knows are
// told in the answer, others (no GOPATH, bad flags) on standard error.
func parseModule(stdout []byte, stderr string, ran error) (dir string, err error) {
	var answer struct{ Dir, Error string }
	parsed := json.Unmarshal(stdout, &answer)
	switch {
	case answer.Error != "":
		return "", errors.New(answer.Error)
	case ran != nil:
		return "", fmt.Errorf("go mod download: %w: %s", ran, oneLine(stderr))
	case parsed != nil:
		return "", fmt.Errorf("go mod download: unreadable answer: %w", parsed)
	case answer.Dir == "":
		return "", errors.New("go mod download: the answer names no directory")
	}
	return answer.Dir, nil
}

// oneLine makes the output of a command fit into a line of an error.
func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > 400 {
		s = s[:400] + "…"
	}
	return s
}

// moduleEnv is the user's environment less what makes the go command look at a
// main module. GOFLAGS keeps what it says of other things (-modcacherw, say);
// it must not come out empty, or what `go env -w` stored would take its place.
func moduleEnv(env []string) []string {
	flags := []string{"-mod=mod"}
	for _, kv := range env {
		value, ok := strings.CutPrefix(kv, "GOFLAGS=")
		if !ok {
			continue
		}
		flags = flags[:1] // the last setting counts
		for _, f := range strings.Fields(value) {
			if name := strings.TrimLeft(f, "-'\""); !strings.HasPrefix(name, "mod=") && !strings.HasPrefix(name, "modfile=") {
				flags = append(flags, f)
			}
		}
	}
	return append(env, "GOFLAGS="+strings.Join(flags, " "), "GO111MODULE=on", "GOWORK=off")
}

// mirrorSource takes files from a web server, base URL + name.
type mirrorSource struct {
	base   string
	stall  time.Duration // without a byte for so long, a download is given up
	client *http.Client
}

func newMirrorSource(base string, stall time.Duration) *mirrorSource {
	t := http.DefaultTransport.(*http.Transport).Clone()
	// We want the .gz as it lies there. Asking for compression would make a server
	// that declares it as a Content-Encoding, and then net/http, unpack it.
	t.DisableCompression = true
	return &mirrorSource{
		base:   strings.TrimSuffix(base, "/") + "/",
		stall:  stall,
		client: &http.Client{Transport: t},
	}
}

func (m *mirrorSource) String() string { return m.base }

func (m *mirrorSource) close() { m.client.CloseIdleConnections() }

func (m *mirrorSource) open(ctx context.Context, f File, from int64) (io.ReadCloser, int64, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	body := &stallingBody{ctx: ctx, cancel: cancel, stall: m.stall}
	body.timer = time.AfterFunc(m.stall, func() {
		cancel(fmt.Errorf("no byte came for %v", m.stall))
	})
	at, err := m.request(ctx, body, m.base+f.Name, from)
	if err != nil {
		err = body.cause(err)
		return nil, 0, errors.Join(err, body.Close())
	}
	return body, at, nil
}

// request puts the body of the answer into body, also if it is refused. It begins
// at offset at: from, or 0. Where a server that knows ranges has no such one, its
// file is another one than that which was begun: the content is wrong.
func (m *mirrorSource) request(ctx context.Context, body *stallingBody, url string, from int64) (at int64, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	if from > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", from))
	}
	resp, err := m.client.Do(req)
	if err != nil {
		return 0, err
	}
	body.body = resp.Body
	begins := fmt.Sprintf("bytes %d-", from)
	switch {
	case resp.StatusCode == http.StatusOK:
		return 0, nil
	case resp.StatusCode == http.StatusPartialContent && from > 0 && strings.HasPrefix(resp.Header.Get("Content-Range"), begins):
		return from, nil
	}
	err = fmt.Errorf("the server answered %s", resp.Status)
	if resp.StatusCode == http.StatusPartialContent || resp.StatusCode == http.StatusRequestedRangeNotSatisfiable {
		err = wrongContent{fmt.Errorf("%w to a request for bytes from %d on, and Content-Range %q", err, from, resp.Header.Get("Content-Range"))}
	}
	return 0, err
}

// stallingBody is the body of a download that is cancelled when nothing comes
// for too long. However slow, a download that moves goes on.
type stallingBody struct {
	body   io.ReadCloser // nil until the headers have come
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	stall  time.Duration
}

func (b *stallingBody) Read(p []byte) (int, error) {
	n, err := b.body.Read(p)
	if n > 0 {
		b.timer.Reset(b.stall)
	}
	if err != nil && err != io.EOF {
		err = b.cause(err)
	}
	return n, err
}

// cause is why the download was cancelled, or err if it wasn't.
func (b *stallingBody) cause(err error) error {
	if b.ctx.Err() != nil {
		return context.Cause(b.ctx)
	}
	return err
}

// Close ends the download, wherever it is.
func (b *stallingBody) Close() error {
	b.timer.Stop()
	b.cancel(nil)
	if b.body == nil {
		return nil
	}
	return b.body.Close()
}
