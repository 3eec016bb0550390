package bench

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// Link is the way from one worker to another, as the other sees it.
type Link struct {
	From string `json:"from"`
	To   string `json:"to"`

	// Round trips of a small message, in microseconds.
	TCP  Trip `json:"tcp_round_trip_us"`
	GRPC Trip `json:"grpc_round_trip_us"`

	// What comes through, in GB/s.
	TCPBandwidth  float64 `json:"tcp_gb_s"`
	GRPCBandwidth float64 `json:"grpc_gb_s"` // a copy of a state, as a node that joins makes it
}

// Trip is how long there and back takes.
type Trip struct {
	Median float64 `json:"median"`
	P10    float64 `json:"p10"`
	P90    float64 `json:"p90"`
}

func tripOf(times []time.Duration) Trip {
	q := QuantilesOf(times)
	return Trip{micros(q.Median), micros(q.P10), micros(q.P90)}
}

// LinkReport is all links that were measured.
type LinkReport struct {
	When    time.Time `json:"when"`
	Workers []Worker  `json:"workers"`
	Links   []Link    `json:"links"`
}

// fewWorkers is up to how many workers every pair is measured, and not only neighbours.
const fewWorkers = 4

// Links measures, one at a time, the ways between all workers, both directions of each;
// of many workers, those between neighbours of the ring that they would be. Each takes
// about during.
func (c *Conductor) Links(ctx context.Context, during time.Duration, progress func(text string)) (*LinkReport, error) {
	r := &LinkReport{When: time.Now(), Workers: c.Workers}
	for _, p := range pairs(len(c.Workers)) {
		from, to := c.Workers[p[0]], c.Workers[p[1]]
		progress(from.Name + " to " + to.Name)
		reply, err := ask[linkReply](ctx, c, p[1], request{Link: &linkRequest{Addr: from.Addr, Raw: from.link, During: during}})
		if err != nil {
			return r, err
		}
		r.Links = append(r.Links, Link{
			From: from.Name, To: to.Name, TCP: tripOf(reply.TCPRoundTrips), GRPC: tripOf(reply.GRPCRoundTrips),
			TCPBandwidth: reply.TCPBytes / 1e9, GRPCBandwidth: reply.GRPCBytes / 1e9,
		})
	}
	return r, nil
}

// pairs lists who sends to whom.
func pairs(n int) (all [][2]int) {
	for i := range n {
		for j := i + 1; j < n; j++ {
			if n <= fewWorkers || j == i+1 || i == 0 && j == n-1 {
				all = append(all, [2]int{i, j}, [2]int{j, i})
			}
		}
	}
	return all
}

// WriteTable writes a report for people.
func (r *LinkReport) WriteTable(out io.Writer) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "from\tto\tTCP round trip\tp10–p90\tgRPC round trip\tp10–p90\tTCP\tgRPC\tof TCP\t")
	for _, l := range r.Links {
		fmt.Fprintf(t, "%s\t%s\t%.0f µs\t%.0f–%.0f\t%.0f µs\t%.0f–%.0f\t%.2f Gbit/s\t%.2f Gbit/s\t%s\t\n", l.From, l.To,
			l.TCP.Median, l.TCP.P10, l.TCP.P90, l.GRPC.Median, l.GRPC.P10, l.GRPC.P90,
			8*l.TCPBandwidth, 8*l.GRPCBandwidth, share(ratio(l.GRPCBandwidth, l.TCPBandwidth)))
	}
	return t.Flush()
}
