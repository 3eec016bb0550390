package train

import (
	"context"
	"fmt"

	"github.com/dlnode/dlnode/dataset"
	"github.com/dlnode/dlnode/job"
)

// OpenData opens the data set that a job names, fetching it if need be, and
// gives its labels the form that the job's loss takes: categorical_crossentropy
// wants class ids spread out. test is nil where there is none. The error is a
// *job.Error at the job's data section.
func OpenData(ctx context.Context, j *job.Job, env dataset.Env) (train, test dataset.Dataset, err error) {
	spec, ok := j.Data.(dataset.Spec)
	if !ok {
		return nil, nil, j.Blame("data", fmt.Errorf("%T is not a data set of package dataset", j.Data))
	}
	if train, test, err = dataset.Open(ctx, spec, env); err != nil {
		return nil, nil, j.Blame("data", err)
	}
	train = labelled(j, train)
	if test != nil {
		test = labelled(j, test)
	}
	return train, test, nil
}

// labelled returns d with the labels that the job's loss takes.
func labelled(j *job.Job, d dataset.Dataset) dataset.Dataset {
	info := d.Info()
	if j.Loss == "categorical_crossentropy" && info.Classes > 0 && info.Target == 1 {
		return dataset.OneHot(d)
	}
	return d
}
