package dataset

import (
	"context"
	"errors"
)

// IMDb is the data set of movie reviews by Maas and others: 25,000 + 25,000 texts,
// negative ones (class 0) and positive ones. It is a TextFolder whose archive is
// fetched where path is empty.
type IMDb struct {
	TextFolder `yaml:",inline"`
}

// Kind returns "imdb".
func (*IMDb) Kind() string { return "imdb" }

// newIMDb leaves out the reviews without a class, which lie in a folder beside
// those of the classes.
func newIMDb() *IMDb {
	f := newTextFolder()
	f.Classes = []string{"neg", "pos"}
	f.NumWords, f.MaxLen = 10_000, 200
	return &IMDb{f}
}

// Validate tells which field is out of its range.
func (d *IMDb) Validate() error {
	var p problems
	d.check(&p)
	return errors.Join(p...)
}

func (d *IMDb) open(ctx context.Context, env Env) (train, test Dataset, err error) {
	f := d.TextFolder
	if f.Path, err = imdb().archive(ctx, env, f.Path); err != nil {
		return nil, nil, err
	}
	return f.decode(ctx, env, d, []string{".txt"}, f.fill)
}

// imdb is the entry of the reviews. The digest is that of Stanford's file.
func imdb() Entry {
	return Entry{
		Name:       "imdb",
		Title:      "movie reviews, 25,000 + 25,000 texts, negative or positive",
		ClassNames: []string{"neg", "pos"},
		Files: []File{
			{"aclImdb_v1.tar.gz", 84125825, "c40f74a18d3b61f90feba1e17730e0d38e8b97c05fde7008942e91923d1658fe"},
		},
		Mirrors: []string{"https://ai.stanford.edu/~amaas/data/sentiment/"},
		Own:     true,
	}
}

// CatsVsDogs is a data set of photos of cats (class 0) and dogs. It is an
// ImageFolder whose archive is fetched where path is empty. Some of the published
// files are no images: on_broken: skip.
type CatsVsDogs struct {
	ImageFolder `yaml:",inline"`
}

// Kind returns "cats_vs_dogs".
func (*CatsVsDogs) Kind() string { return "cats_vs_dogs" }

// Validate tells which field is out of its range.
func (d *CatsVsDogs) Validate() error {
	var p problems
	d.check(&p)
	return errors.Join(p...)
}

func (d *CatsVsDogs) open(ctx context.Context, env Env) (train, test Dataset, err error) {
	f := d.ImageFolder
	if f.Path, err = catsVsDogs().archive(ctx, env, f.Path); err != nil {
		return nil, nil, err
	}
	return f.decode(ctx, env, d, imageExtensions, f.fill)
}

// catsVsDogs is the entry of the photos that Microsoft published.
func catsVsDogs() Entry {
	return Entry{
		Name:       "cats_vs_dogs",
		Title:      "photos of cats and dogs, 25,000 images of many sizes",
		ClassNames: []string{"Cat", "Dog"},
		Files: []File{
			{"kagglecatsanddogs_5340.zip", 824887076, "b7974bd00a84a99921f36ee4403f089853777b5ae8d151c76a86e64900334af9"},
		},
		Mirrors: []string{"https://download.microsoft.com/download/3/E/1/3E1C3F21-ECDB-4869-8368-6DEBA77B919F/"},
		Own:     true,
	}
}
