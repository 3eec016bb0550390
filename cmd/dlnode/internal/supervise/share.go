package supervise

import (
	"runtime"
	"slices"
	"strconv"
)

// Share is the environment of one of several processes that share this machine's CPUs, each with so many
// threads that compute: it runs on its share and no more. With more, the goroutines of one process
// wander from CPU to CPU, wake one another there, and spin where another process computes: steps that are short
// took twice as long. A GOMAXPROCS of the user's own goes before it.
func Share(processes, threads int) []string {
	return []string{"GOMAXPROCS=" + strconv.Itoa(max(1, threads, runtime.NumCPU()/max(1, processes)))}
}

// CPUs are those that the i-th of several processes runs on, from 0, nil for wherever the system puts it. Where
// threads that compute are exactly as many as there are CPUs, each process gets its own: else
// the system moves them about with every message, and two run on one CPU while another has nothing to do. Where
// there are more CPUs, some have to be left for others, and the system knows better which.
func CPUs(i, processes, threads int) []int {
	threads = max(1, threads)
	all := allowedCPUs()
	if i < 0 || i >= processes || processes == 1 || processes*threads != len(all) {
		return nil
	}
	byCore(all)
	return slices.Sorted(slices.Values(all[i*threads : (i+1)*threads]))
}
