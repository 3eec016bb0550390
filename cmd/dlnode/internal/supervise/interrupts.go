package supervise

import (
	"os"
	"os/signal"
	"sync"
)

// ForwardInterrupts makes Ctrl-C, SIGTERM and SIGHUP of this process an
// Interrupt: the first asks the nodes to leave, the second kills them. It ends
// with stop, which returns when its goroutine is gone.
func (s *Supervisor) ForwardInterrupts() (stop func()) {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, interrupts...)
	quit, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		for {
			select {
			case <-signals:
				s.Interrupt()
			case <-quit:
				return
			}
		}
	}()
	return sync.OnceFunc(func() {
		signal.Stop(signals)
		close(quit)
		<-gone
	})
}
