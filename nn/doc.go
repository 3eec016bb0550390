// Package nn is the function that is trained: layers, losses and metrics over
// flat vectors of float32, forwards and backwards.
//
// # What goes in and what comes out
//
// A [Spec] says what the model is, in Keras' vocabulary. [Build] checks it
// against the shape of the data and turns it into a [Model]: an immutable chain
// of operations and a list of [Tensor] windows into one flat parameter vector.
// The vector itself belongs to the caller. So do the gradient and whatever an
// optimizer keeps beside them: to sum, to update, to save, to hash and to send
// a model are loops over one slice, and none of them is in this package.
//
//	Spec ──Build──► Model ──NewWorkspace──► Workspace        (one a goroutine)
//	                  │                        │
//	            Tensors, Init            Forward, Backward
//	                  │                        │
//	params [──kernel──|bias|──kernel──|bias]   │  x ─► ops ─► out ─► losses
//	grads  [──────────|────|──────────|────] ◄─┘         ◄── ready(lo, hi)
//
// A [Workspace] holds every byte that a batch needs, taken once. A step
// allocates nothing. Backward walks the chain in reverse and says of each
// layer, as soon as it is so, that its window of the gradient is final.
//
// # One sample, one sequence of operations
//
// Training here is a deterministic state machine: any node may compute any
// microbatch, and another may compute it again. That works only if the bits of
// a result are a function of what is computed, not of where. The rules:
//
//   - What belongs to one sample (output, loss, metric, dropout mask) is the
//     same alone, in a batch of 32, and at any place in it. Every element of a
//     matrix product is one chain of fused multiply-adds along the shared axis,
//     in order; every reduction over a row has an order that depends on the
//     row's length alone.
//     The one exception is batch normalization in training, which looks at its
//     microbatch.
//   - The gradient of a batch is a sum over its samples in their order. A
//     microbatch is therefore the unit of work: its gradient is a value, and
//     what crosses microbatches is added elsewhere, exactly.
//   - Randomness is looked up, never drawn. Element j of sample id in layer l at
//     step t is kept or dropped by word j of the stream (seed, Dropout, t, id,
//     l). Weights begin as words of (seed, Init, tensor).
//   - Products are written float32(x*y), so that no compiler fuses them into
//     the addition that follows; exp, log, sin and cos are the project's own.
//
// # Axes and branches
//
// A sample has axes: height, width and channels (last, as in Keras), or time and
// values. Layers check the shape that comes to them and say what they want.
// Residual and Concat hold layers of their own, so that a model is a tree of
// chains; a branch is a chain like the model's, and each keeps what the others
// must not overwrite. An embedding with mask_zero marks which steps of a sequence
// are there; which layers pass the mask on is known when the model is built.
//
// A convolution goes from sample to sample, with the bias, relu and max pooling
// behind it as one operation, and unfolds no window. A recurrent layer computes what
// does not depend on the step before as one product over a block of steps, with time
// as the first axis; so its gradient is a sum over blocks from the last to the first.
//
// # Statistics: what moves and is no weight
//
// Batch normalization, in training, goes by mean and variance of its microbatch,
// and moves running ones once a step, towards the mean over all microbatches,
// weighted by their samples. Which microbatch was computed where, and in what
// order they are added, must be in no bit, as with gradients. So they go the way
// of gradients: running mean and variance are tensors of the parameter vector,
// marked [Statistic]; in their place of the gradient Backward writes the batch's
// own times its samples. What carries gradients carries them, with a grid of their
// own: rounded to integers, summed exactly, divided by the samples of the step once.
// At the end the optimizer moves such a tensor by
//
//	p = momentum·p + (1-momentum)·mean
//
// and leaves it out of norms, penalties and its own rule. A skipped step moves
// nothing. State, checkpoints, digests, best weights and recovery know nothing of
// it. The variance is the mean of the microbatches' own, not that of the step: it
// is what training divided by. Frozen tensors are marked too, [Frozen]: their
// gradient is zero, nobody moves them, and a frozen batch normalization goes by
// its running statistics in training, as in Keras.
//
// # Losses
//
// Cross-entropies are computed from logits, never from probabilities: softmax
// with a shifted log-sum-exp, sigmoid with log1p(exp(-|z|)). The gradient at
// the logits is then simply p - y; nothing is clipped and nothing is divided by
// a vanishing probability. A cross-entropy therefore demands its activation at
// the end of the model and Build says so. Backward computes the gradient of the
// sum of the losses, not of their mean: the denominator is a property of the
// global batch, and is divided out once by whoever knows it. Weights of samples and
// of classes multiply losses; as in Keras, they are in no denominator.
//
// # Metrics
//
// A [Metric] is a function of sums over samples: of one sum, where it is a mean;
// of counts for each class, where it is precision, recall, F1 or a confusion
// matrix; of counts between thresholds, where it is AUC. What a sample adds to the
// sums ([Workspace.MetricValues], [Workspace.Marks]) depends on nothing but the
// sample. So whoever adds exactly gets the same metric, whatever the nodes, threads
// and batches: an epoch's precision is that of all its samples, never a mean of
// batches' precisions. Metrics take no notice of weights.
//
// # Deliberately absent
//
// No clock, no goroutine, no file, no global state, no source of randomness of
// its own. No automatic differentiation: each operation is a forward and a
// backward, side by side, which the tests hold against finite differences of a
// float64 twin and against values recorded from PyTorch. No broadcasting: a
// shape that does not fit is an error that names the layer, what it got and
// what it wants, also where Keras would find a meaning for it.
package nn
