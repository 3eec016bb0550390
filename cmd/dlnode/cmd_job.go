package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/dlnode/dlnode/job"
)

func (m *Main) newJobCommand() *cobra.Command {
	return group("job", "Look at job files", m.newJobShowCommand())
}

func (m *Main) newJobShowCommand() *cobra.Command {
	var summary bool
	cmd := &cobra.Command{
		Use:   "show job.yaml",
		Short: "Print a job with every default written out",
		Args:  takes("job.yaml"),
		RunE: func(cmd *cobra.Command, args []string) error {
			j, err := loadJob(args[0])
			if err != nil {
				return err
			}
			if summary {
				return m.summarize(cmd.Context(), j)
			}
			return j.Show(m.Stdout)
		},
	}
	cmd.Flags().BoolVar(&summary, "summary", false, "print the layers of the model instead, as the job's data make them")
	return cmd
}

// summarize prints the model. Its shapes begin with those of the data.
func (m *Main) summarize(ctx context.Context, j *job.Job) error {
	t, err := m.openTask(ctx, j)
	if err != nil {
		return err
	}
	need := t.Memory()
	_, err = fmt.Fprintf(m.Stdout, "%smemory: %s with one thread, %s for each further one, beside data and program; %s more with others on slow links\n",
		t.Model.Table(), byteCount(need.Total(1)), byteCount(need.Worker), byteCount(need.Next))
	return err
}

// loadJob reads a job file; what is wrong with it is the user's to mend.
func loadJob(path string) (*job.Job, error) {
	j, err := job.Load(path)
	return j, exit(codeUsage, err)
}
