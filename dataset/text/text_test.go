package text

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func fitted(t testing.TB, o Options, texts ...string) *Tokenizer {
	t.Helper()
	c := NewCounter(o)
	for _, s := range texts {
		c.Add(s)
	}
	tok, err := c.Tokenizer()
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// golden.json was written by golden.py, beside it.
func TestIdsAreThoseOfKeras(t *testing.T) {
	file, err := os.ReadFile(filepath.Join("testdata", "golden.json"))
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Options           Options
		Fit, Texts, Words []string
		Rows              [][]int32
	}
	if err := json.Unmarshal(file, &cases); err != nil || len(cases) == 0 {
		t.Fatal(len(cases), err)
	}
	for n, c := range cases {
		tok := fitted(t, c.Options, c.Fit...)
		if c.Options.NumWords != 0 {
			c.Words = c.Words[:c.Options.NumWords-1]
		}
		if diff := cmp.Diff(c.Words, tok.Words); diff != "" {
			t.Errorf("case %d: words: %s", n, diff)
		}
		for i, s := range c.Texts {
			row := make([]int32, tok.MaxLen)
			tok.Encode(s, row)
			if diff := cmp.Diff(c.Rows[i], row); diff != "" {
				t.Errorf("case %d: %q: %s", n, s, diff)
			}
		}
	}
}

func TestARestoredTokenizerGivesTheSameRows(t *testing.T) {
	o := Default()
	o.OOV, o.MaxLen = "<OOV>", 6
	tok := fitted(t, o, "one two two three three three")
	text, err := json.Marshal(tok)
	if err != nil {
		t.Fatal(err)
	}
	var back Tokenizer
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if err := back.Ready(); err != nil {
		t.Fatal(err)
	}
	a, b := make([]int32, 6), make([]int32, 6)
	tok.Encode("Two, four, three!", a)
	back.Encode("Two, four, three!", b)
	if diff := cmp.Diff([]int32{0, 0, 0, 3, 1, 2}, a); diff != "" || !cmp.Equal(a, b) {
		t.Errorf("rows %v and %v: %s", a, b, diff)
	}
	if got := back.Decode(b); got != "two <OOV> three" || back.Vocabulary() != 5 {
		t.Errorf("the row reads %q, of %d ids", got, back.Vocabulary())
	}
}

func TestWhatIsWrongWithATokenizerIsTold(t *testing.T) {
	bad := Options{NumWords: 1, MaxLen: -1, Padding: "left", Truncating: "pre"}
	const want = "num_words: 1 is not allowed (want 0 for all, or 2 to 16777216)\n" +
		"split: \"\" is not allowed (want what stands between words)\n" +
		"maxlen: -1 is not allowed (want 0 for the longest text, or 1 to 1048576)\n" +
		"padding: \"left\" is not allowed (want pre or post)"
	if err := bad.Validate(); err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
	o := Default()
	o.OOV = "cat"
	c := NewCounter(o)
	c.Add("A cat.")
	if _, err := c.Tokenizer(); err == nil || !strings.Contains(err.Error(), `"cat" is a word of the texts`) {
		t.Errorf("an OOV that is a word: %v", err)
	}
	for text, want := range map[string]string{
		`{"split":" ","padding":"pre","truncating":"pre","maxlen":0}`:                       "maxlen: 0 is not allowed (want 1 or more)",
		`{"split":" ","padding":"pre","truncating":"pre","maxlen":3,"words":["a","b","a"]}`: `words: "a" has ids 1 and 3`,
	} {
		var tok Tokenizer
		if err := json.Unmarshal([]byte(text), &tok); err != nil {
			t.Fatal(err)
		}
		if err := tok.Ready(); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestCleanTellsWhereATextIsNotUTF8(t *testing.T) {
	if s, err := Clean([]byte("\ufeffone\r\ntwo\rthree\n")); err != nil || s != "one\ntwo\nthree\n" {
		t.Errorf("%q, %v", s, err)
	}
	if _, err := Clean([]byte("caf\xe9 \ufffd")); err == nil || err.Error() != "offset 3: byte 0xe9 is not UTF-8" {
		t.Error(err)
	}
	if _, err := Clean([]byte("ok \ufffd")); err != nil {
		t.Error(err)
	}
}

// FuzzEncode holds the tokenizer to: no panic, ids below the bound, and a text that
// was counted without a bound reads back word for word.
func FuzzEncode(f *testing.F) {
	f.Add("The cat sat on the mat.", "unseen", 3, true)
	f.Add("ΟΔΥΣΣΕΥΣ İ", "σς", 0, true)
	f.Add("\xff\xfe", "\x00", 2, false)
	f.Fuzz(func(t *testing.T, counted, other string, numWords int, lowered bool) {
		o := Default()
		o.NumWords, o.Lower = numWords, lowered
		if o.Validate() != nil || !utf8.ValidString(counted) {
			return
		}
		tok := fitted(t, o, counted)
		row := make([]int32, tok.MaxLen)
		for _, s := range []string{other, counted} {
			tok.Encode(s, row)
			for _, id := range row {
				if id < 0 || int(id) >= tok.Vocabulary() || numWords > 0 && int(id) >= numWords {
					t.Fatalf("id %d of %d words, num_words %d", id, len(tok.Words), numWords)
				}
			}
		}
		var words []string
		o.words(counted, func(w string) { words = append(words, w) })
		if got := tok.Decode(row); numWords == 0 && got != strings.Join(words, " ") {
			t.Fatalf("%q reads back %q", counted, got)
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	s := strings.Repeat("It's a long <br /> review, of a film that nobody has seen. ", 20)
	o := Default()
	o.NumWords, o.MaxLen = 10000, 200
	tok := fitted(b, o, s)
	row := make([]int32, tok.MaxLen)
	b.SetBytes(int64(len(s)))
	for b.Loop() {
		tok.Encode(s, row)
	}
}

// FuzzTokenizer reads any JSON for a tokenizer: it is refused, or its rows hold ids
// that it has.
func FuzzTokenizer(f *testing.F) {
	f.Add([]byte(`{"num_words":9,"lower":true,"filters":".","split":" ","oov_token":"?","maxlen":4,"padding":"post","truncating":"pre","words":["?","a"]}`), "a b. A ?")
	f.Add([]byte(`{"split":" ","padding":"pre","truncating":"pre","maxlen":1048576,"words":["",""]}`), "")
	f.Add([]byte(`{"split":"..","filters":"...","padding":"pre","truncating":"post","maxlen":3,"words":["a","b","c"]}`), "a..b...c")
	f.Fuzz(func(t *testing.T, text []byte, s string) {
		var tok Tokenizer
		if json.Unmarshal(text, &tok) != nil || tok.Ready() != nil {
			return
		}
		row := make([]int32, tok.MaxLen)
		tok.Encode(s, row)
		for _, id := range row {
			if id < 0 || int(id) >= tok.Vocabulary() {
				t.Fatalf("id %d of %d words", id, len(tok.Words))
			}
		}
		tok.Decode(row)
	})
}

// FuzzClean holds Clean to: what is accepted is UTF-8 without zero bytes and carriage
// returns, and what is refused is told where.
func FuzzClean(f *testing.F) {
	f.Add([]byte("\ufeffone\r\ntwo\rthree"))
	f.Add([]byte("caf\xe9"))
	f.Add([]byte("\xff\xfea\x00"))
	f.Add([]byte("ab\x00"))
	f.Fuzz(func(t *testing.T, file []byte) {
		s, err := Clean(file)
		if err == nil && (!utf8.ValidString(s) || strings.ContainsAny(s, "\x00\r")) {
			t.Fatalf("%q becomes %q", file, s)
		}
		if err != nil && !strings.HasPrefix(err.Error(), "offset ") {
			t.Fatal(err)
		}
	})
}

func TestTextsThatAreNoneAreToldByOffset(t *testing.T) {
	for file, want := range map[string]string{
		"\xff\xfeh\x00i\x00":     "offset 0: the bytes ff fe are the mark of UTF-16, want UTF-8",
		"\xfe\xff\x00h":          "offset 0: the bytes fe ff are the mark of UTF-16, want UTF-8",
		"h\x00i\x00":             "offset 1: byte 0x00 (is it UTF-16, or no text?)",
		"caf\xe9 \x00":           "offset 3: byte 0xe9 is not UTF-8",
		"\x00 caf\xe9":           "offset 0: byte 0x00 (is it UTF-16, or no text?)",
		"surrogate \xed\xa0\x80": "offset 10: byte 0xed is not UTF-8",
	} {
		if _, err := Clean([]byte(file)); err == nil || err.Error() != want {
			t.Errorf("%q: got %v, want %s", file, err, want)
		}
	}
	for text, want := range map[string]string{
		`{"split":" ","padding":"pre","truncating":"pre","maxlen":3,"words":["a",""]}`:                "words: that of id 2 is empty",
		`{"num_words":2,"split":" ","padding":"pre","truncating":"pre","maxlen":3,"words":["a","b"]}`: "words: 2 of them, and num_words is 2",
		`{"split":"` + strings.Repeat("x", 300) + `","padding":"pre","truncating":"pre","maxlen":3}`:  "split: a text of 300 bytes is not allowed (want at most 256)",
	} {
		var tok Tokenizer
		if err := json.Unmarshal([]byte(text), &tok); err != nil {
			t.Fatal(err)
		}
		if err := tok.Ready(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
