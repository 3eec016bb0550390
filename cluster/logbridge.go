package cluster

import (
	"bytes"
	"context"
	"log"
	"log/slog"
	"sync/atomic"
)

// logBridge is the writer behind the *log.Logger that memberlist wants. It
// turns "[WARN] memberlist: text" into a record of level Warn.
type logBridge struct {
	to     *slog.Logger
	silent atomic.Bool // memberlist still complains of closed sockets while it shuts down
}

// The prefixes of memberlist. Its errors are each about one packet or one peer
// and are survived by design, so they are warnings here.
var logLevels = []struct {
	prefix string
	level  slog.Level
}{
	{"[DEBUG] ", slog.LevelDebug},
	{"[INFO] ", slog.LevelInfo},
	{"[WARN] ", slog.LevelWarn},
	{"[ERR] ", slog.LevelWarn},
	{"[ERROR] ", slog.LevelWarn},
	{"Err: ", slog.LevelWarn},
}

// logger returns the logger to give to memberlist.
func (b *logBridge) logger() *log.Logger { return log.New(b, "", 0) }

// Write takes one line, as package log promises.
func (b *logBridge) Write(line []byte) (int, error) {
	if b.silent.Load() {
		return len(line), nil
	}
	text, level := bytes.TrimSpace(line), slog.LevelInfo
	for _, l := range logLevels {
		if rest, ok := bytes.CutPrefix(text, []byte(l.prefix)); ok {
			text, level = rest, l.level
			break
		}
	}
	text = bytes.TrimPrefix(text, []byte("memberlist: "))
	b.to.Log(context.Background(), level, "gossip: "+string(text))
	return len(line), nil
}
