package supervise

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// process is a running node.
type process struct {
	cmd   *exec.Cmd
	stdin io.Closer // the end of the pipe that tells the node we live
	log   *os.File
	lines *lineWriter // nil where standard output goes to the log
}

// pipeDelay is how long a dead node's output is waited for, should a process of
// its own have inherited it.
const pipeDelay = time.Second

// launch starts a process. The calling thread is its parent.
func launch(id string, c Command, logDir string, line func(id string, line []byte)) (*process, error) {
	if len(c.Argv) == 0 {
		return nil, errors.New("an empty command line")
	}
	log, err := os.OpenFile(filepath.Join(logDir, id+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.Command(c.Argv[0], c.Argv[1:]...), log: log}
	p.cmd.Dir = c.Dir
	p.cmd.Env = append(p.cmd.Environ(), c.Env...)
	p.cmd.SysProcAttr = ownGroup()
	p.cmd.WaitDelay = pipeDelay
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if line != nil {
		p.lines = &lineWriter{emit: func(l []byte) { line(id, l) }}
		p.cmd.Stdout = p.lines
	}
	if p.stdin, err = p.cmd.StdinPipe(); err == nil {
		err = startOn(c.CPUs, p.cmd.Start)
	}
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	return p, nil
}

// wait returns how the process ended, once its output is read, and what went
// wrong beside that.
func (p *process) wait() (Exit, error) {
	err := p.cmd.Wait() // closes stdin as well
	if p.lines != nil {
		p.lines.flush()
	}
	if e := (*exec.ExitError)(nil); errors.As(err, &e) {
		err = nil // that is what Exit tells
	}
	return exitOf(p.cmd.ProcessState), errors.Join(err, p.log.Close())
}

func exitOf(state *os.ProcessState) Exit {
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return Exit{Signal: status.Signal().String()}
	}
	return Exit{Status: state.ExitCode()}
}

// lineWriter cuts what is written into lines. A line longer than maxLine comes
// in pieces.
type lineWriter struct {
	emit func(line []byte)
	rest []byte // the beginning of a line whose end is still to come
}

const maxLine = 1 << 20

func (w *lineWriter) Write(b []byte) (int, error) {
	n := len(b)
	for {
		line, after, ok := bytes.Cut(b, []byte{'\n'})
		if !ok {
			break
		}
		if len(w.rest) > 0 {
			line = append(w.rest, line...)
		}
		w.emit(line)
		w.rest, b = w.rest[:0], after
	}
	if w.rest = append(w.rest, b...); len(w.rest) >= maxLine {
		w.flush()
	}
	return n, nil
}

// flush emits the last line of a process that did not end it.
func (w *lineWriter) flush() {
	if len(w.rest) > 0 {
		w.emit(w.rest)
		w.rest = w.rest[:0]
	}
}
