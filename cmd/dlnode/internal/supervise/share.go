package supervise

import (
	"runtime"
	"strconv"
)

// Share is the environment of one of several processes that share this machine's CPUs, each with so many
// threads that compute: it runs on its share and no more. With more, the goroutines of one process
// wander from CPU to CPU, wake one another there, and spin where another process computes: steps that are short
// took twice as long. A GOMAXPROCS of the user's own goes before it.
func Share(processes, threads int) []string {
	return []string{"GOMAXPROCS=" + strconv.Itoa(max(1, threads, runtime.NumCPU()/max(1, processes)))}
}
