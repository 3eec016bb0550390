// Package text turns texts into rows of numbers, as Keras' Tokenizer and
// pad_sequences do: words in the order of their frequency, of those equally
// frequent the one seen first.
//
//	texts ─► Counter ─► Tokenizer (options and words)
//	text ──────────────► Tokenizer.Encode ─► [MaxLen] ids, 0 where there is no word
package text

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// DefaultFilters are the characters that Keras takes for spaces.
const DefaultFilters = "!\"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n"

// Limits of what is asked for.
const (
	maxLen   = 1 << 20
	maxWords = 1 << 24 // ids must be exact as float32
	maxSplit = 1 << 8  // bytes: every character of a text may become it
)

// Options say how a text is taken apart, under Keras' names.
type Options struct {
	NumWords   int    `yaml:"num_words" json:"num_words"`   // ids stay below it, so it keeps NumWords-1 words; 0 keeps all
	Lower      bool   `yaml:"lower" json:"lower"`           // words are made lower case first
	Filters    string `yaml:"filters" json:"filters"`       // each of these characters counts as Split
	Split      string `yaml:"split" json:"split"`           // what stands between words
	OOV        string `yaml:"oov_token" json:"oov_token"`   // takes id 1 and the place of words that are not known; "" leaves these out
	MaxLen     int    `yaml:"maxlen" json:"maxlen"`         // length of a row; 0 is that of the longest text that was counted
	Padding    string `yaml:"padding" json:"padding"`       // where zeros go: "pre" or "post"
	Truncating string `yaml:"truncating" json:"truncating"` // where what is too much is cut off: "pre" or "post"
}

// Default returns Keras' defaults.
func Default() Options {
	return Options{Lower: true, Filters: DefaultFilters, Split: " ", Padding: "pre", Truncating: "pre"}
}

// Validate tells all that is wrong, each as "field: value is not allowed (want …)".
func (o Options) Validate() error {
	var errs []error
	check := func(ok bool, field string, value any, want string) {
		if !ok {
			errs = append(errs, fmt.Errorf("%s: %v is not allowed (want %s)", field, value, want))
		}
	}
	check(o.NumWords == 0 || o.NumWords >= 2 && o.NumWords <= maxWords, "num_words", o.NumWords, fmt.Sprintf("0 for all, or 2 to %d", maxWords))
	check(o.Split != "", "split", `""`, "what stands between words")
	check(len(o.Split) <= maxSplit, "split", fmt.Sprintf("a text of %d bytes", len(o.Split)), fmt.Sprintf("at most %d", maxSplit))
	check(o.MaxLen >= 0 && o.MaxLen <= maxLen, "maxlen", o.MaxLen, fmt.Sprintf("0 for the longest text, or 1 to %d", maxLen))
	check(o.Padding == "pre" || o.Padding == "post", "padding", fmt.Sprintf("%q", o.Padding), "pre or post")
	check(o.Truncating == "pre" || o.Truncating == "post", "truncating", fmt.Sprintf("%q", o.Truncating), "pre or post")
	return errors.Join(errs...)
}

// words calls f for each word of a text.
func (o Options) words(text string, f func(string)) {
	if o.Lower {
		text = lower(text)
	}
	if strings.ContainsAny(text, o.Filters) {
		text = replaceAny(text, o.Filters, o.Split)
	}
	for w := range strings.SplitSeq(text, o.Split) {
		if w != "" {
			f(w)
		}
	}
}

// replaceAny replaces each rune of s that is in chars.
func replaceAny(s, chars, by string) string {
	var ascii [utf8.RuneSelf]bool
	for _, r := range chars {
		if r < utf8.RuneSelf {
			ascii[r] = true
		}
	}
	var b strings.Builder
	b.Grow(len(s))
	for i, r := range s {
		switch {
		case r < utf8.RuneSelf && !ascii[r]:
			b.WriteByte(s[i])
		case r < utf8.RuneSelf || strings.ContainsRune(chars, r):
			b.WriteString(by)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// lower is Python's str.lower, which differs from strings.ToLower in two letters:
// İ keeps its dot as a mark of its own, and a capital sigma at the end of a word
// becomes ς (Unicode's SpecialCasing, Final_Sigma).
func lower(s string) string {
	low := strings.ToLower(s)
	if !strings.ContainsAny(s, "İΣ") {
		return low
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == 'İ':
			b.WriteString("i̇")
		case r == 'Σ' && finalSigma(s[:i], s[i+len("Σ"):]):
			b.WriteRune('ς')
		default:
			b.WriteRune(unicode.ToLower(r))
		}
	}
	return b.String()
}

// finalSigma reports whether a sigma ends a word: a letter before it, none after,
// and nothing but marks between.
func finalSigma(before, after string) bool {
	for before != "" {
		r, n := utf8.DecodeLastRuneInString(before)
		before = before[:len(before)-n]
		if !ignorable(r) {
			if !cased(r) {
				return false
			}
			for _, r := range after {
				if !ignorable(r) {
					return !cased(r)
				}
			}
			return true
		}
	}
	return false
}

func cased(r rune) bool {
	return unicode.IsUpper(r) || unicode.IsLower(r) || unicode.IsTitle(r) ||
		unicode.Is(unicode.Other_Lowercase, r) || unicode.Is(unicode.Other_Uppercase, r)
}

// ignorable is Unicode's Case_Ignorable.
func ignorable(r rune) bool {
	return unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf, unicode.Lm, unicode.Sk) ||
		strings.ContainsRune("'.:·‘’․‧︓﹒﹕＇．：", r)
}

// Counter counts the words of texts.
type Counter struct {
	options Options
	words   map[string]*count
	longest int
}

type count struct {
	word  string
	n     int
	first int // how many other words came before it
}

// NewCounter starts to count.
func NewCounter(o Options) *Counter { return &Counter{options: o, words: map[string]*count{}} }

// Add counts the words of a text.
func (c *Counter) Add(text string) {
	length := 0
	c.options.words(text, func(w string) {
		length++
		k := c.words[w]
		if k == nil {
			k = &count{strings.Clone(w), 0, len(c.words)}
			c.words[k.word] = k
		}
		k.n++
	})
	c.longest = max(c.longest, length)
}

// Tokenizer returns what the texts make of the options. It has the words that get
// an id, and a length of rows.
func (c *Counter) Tokenizer() (*Tokenizer, error) {
	t := &Tokenizer{Options: c.options}
	if _, clash := c.words[t.OOV]; clash {
		return nil, fmt.Errorf("oov_token: %q is a word of the texts (want one that is none)", t.OOV)
	}
	all := make([]*count, 0, len(c.words))
	for _, k := range c.words {
		all = append(all, k)
	}
	slices.SortFunc(all, func(a, b *count) int { return cmp.Or(cmp.Compare(b.n, a.n), cmp.Compare(a.first, b.first)) })
	if t.OOV != "" {
		t.Words = append(t.Words, t.OOV)
	}
	for _, k := range all {
		if id := len(t.Words) + 1; t.NumWords != 0 && id >= t.NumWords || id >= maxWords {
			break
		}
		t.Words = append(t.Words, k.word)
	}
	if t.MaxLen == 0 {
		t.MaxLen = max(1, min(c.longest, maxLen))
	}
	return t, t.index()
}

// Tokenizer turns texts into rows. It is safe for concurrent use. Its JSON is all
// that a prediction needs.
type Tokenizer struct {
	Options
	Words []string `json:"words"` // the word of id i+1

	ids map[string]int32
}

// index makes the map of words.
func (t *Tokenizer) index() error {
	t.ids = make(map[string]int32, len(t.Words))
	for i, w := range t.Words {
		if first, dup := t.ids[w]; dup {
			return fmt.Errorf("words: %q has ids %d and %d", w, first, i+1)
		}
		t.ids[w] = int32(i + 1)
	}
	return nil
}

// Ready checks a tokenizer that was read from JSON, and readies it for use.
func (t *Tokenizer) Ready() error {
	if err := t.Validate(); err != nil {
		return err
	}
	switch {
	case t.MaxLen == 0:
		return errors.New("maxlen: 0 is not allowed (want 1 or more)")
	case len(t.Words) >= maxWords || t.NumWords > 0 && len(t.Words) >= t.NumWords:
		return fmt.Errorf("words: %d of them, and num_words is %d (want fewer, and fewer than %d)", len(t.Words), t.NumWords, maxWords)
	case slices.Contains(t.Words, ""):
		return fmt.Errorf("words: that of id %d is empty", slices.Index(t.Words, "")+1)
	}
	return t.index()
}

// Vocabulary returns how many ids there are, 0 for no word included: the
// input_dim of an embedding.
func (t *Tokenizer) Vocabulary() int { return len(t.Words) + 1 }

// Encode fills row [MaxLen] with the ids of a text.
func (t *Tokenizer) Encode(text string, row []int32) {
	if len(row) != t.MaxLen {
		panic(fmt.Sprintf("text: encode into %d numbers, want %d", len(row), t.MaxLen))
	}
	t.fit(t.sequence(text), row)
}

// sequence returns the ids of all words.
func (t *Tokenizer) sequence(text string) []int32 {
	var ids []int32
	unknown := t.ids[t.OOV] // 0 where there is no OOV, for no word is empty
	t.words(text, func(w string) {
		id, known := t.ids[w]
		if !known {
			id = unknown
		}
		if id != 0 {
			ids = append(ids, id)
		}
	})
	return ids
}

// fit cuts ids off or adds zeros.
func (t *Tokenizer) fit(ids, row []int32) {
	if over := len(ids) - len(row); over > 0 && t.Truncating == "pre" {
		ids = ids[over:]
	} else if over > 0 {
		ids = ids[:len(row)]
	}
	clear(row)
	if t.Padding == "pre" {
		copy(row[len(row)-len(ids):], ids)
	} else {
		copy(row, ids)
	}
}

// Decode returns the words of a row, which is Encode's. Zeros are left out.
func (t *Tokenizer) Decode(row []int32) string {
	var words []string
	for _, id := range row {
		if id >= 1 && int(id) <= len(t.Words) {
			words = append(words, t.Words[id-1])
		}
	}
	return strings.Join(words, t.Split)
}

// Clean checks that a file is UTF-8 and gives its text: without a byte order mark,
// and with the line ends of Unix, as Python opens it. A zero byte is an error too:
// no text has one, but UTF-16 and what is no text at all do. The error has the
// offset, that of the first bad byte.
func Clean(file []byte) (string, error) {
	if len(file) >= 2 && (file[0] == 0xff && file[1] == 0xfe || file[0] == 0xfe && file[1] == 0xff) {
		return "", fmt.Errorf("offset 0: the bytes % x are the mark of UTF-16, want UTF-8", file[:2])
	}
	zero := bytes.IndexByte(file, 0)
	if i := invalid(file); i >= 0 && (zero < 0 || i < zero) {
		return "", fmt.Errorf("offset %d: byte 0x%02x is not UTF-8", i, file[i])
	}
	if zero >= 0 {
		return "", fmt.Errorf("offset %d: byte 0x00 (is it UTF-16, or no text?)", zero)
	}
	s := strings.TrimPrefix(string(file), "\ufeff")
	if strings.Contains(s, "\r") {
		s = strings.ReplaceAll(strings.ReplaceAll(s, "\r\n", "\n"), "\r", "\n")
	}
	return s, nil
}

// invalid returns the offset of the first byte that is not UTF-8, or -1.
func invalid(b []byte) int {
	if utf8.Valid(b) {
		return -1
	}
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return -1
}
