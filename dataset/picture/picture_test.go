package picture

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// golden.json was written by golden.py, beside it.
func TestPixelsAreThoseOfPillow(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("testdata", "golden.json"))
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Steps
		Mode       string
		File, Want []byte
	}
	if err := json.Unmarshal(text, &cases); err != nil || len(cases) == 0 {
		t.Fatal(len(cases), err)
	}
	for _, c := range cases {
		got := make([]byte, c.Len())
		if err := c.Decode(c.File, got); err != nil {
			t.Errorf("%s to %+v: %v", c.Mode, c.Steps, err)
		} else if !bytes.Equal(got, c.Want) {
			t.Errorf("%s to %+v is\n%v, want\n%v", c.Mode, c.Steps, got, c.Want)
		}
	}
}

var small = Steps{Height: 2, Width: 3, Color: "rgb", Filter: "bilinear"}

// pixels is a smooth image.
func pixels(w, h int) *image.NRGBA {
	img := image.NewNRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			img.SetNRGBA(x, y, color.NRGBA{uint8(x * 255 / w), uint8(y * 255 / h), 90, 255})
		}
	}
	return img
}

func asJPEG(t testing.TB, img image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := jpeg.Encode(&b, img, &jpeg.Options{Quality: 90}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func asPNG(t testing.TB, img image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestAJPEGLooksLikeWhatItWasMadeOf(t *testing.T) {
	img := pixels(64, 48)
	for _, c := range Colors() {
		s := Steps{Height: 24, Width: 32, Color: c, Filter: "box"}
		got, want := make([]byte, s.Len()), make([]byte, s.Len())
		if err := s.Decode(asJPEG(t, img), got); err != nil {
			t.Fatal(err)
		}
		if err := s.Decode(asPNG(t, img), want); err != nil {
			t.Fatal(err)
		}
		for i := range got {
			if d := int(got[i]) - int(want[i]); d < -8 || d > 8 {
				t.Fatalf("%s: byte %d is %d, want about %d", c, i, got[i], want[i])
			}
		}
	}
}

func TestDeepAndTransparentPixelsKeepTheirColour(t *testing.T) {
	deep := image.NewNRGBA64(image.Rect(0, 0, 1, 1))
	deep.SetNRGBA64(0, 0, color.NRGBA64{0x1234, 0x5678, 0x9abc, 0x0100})
	if got := rgb(deep); !bytes.Equal(got, []byte{0x12, 0x56, 0x9a}) {
		t.Errorf("16 bits: % x", got)
	}
	flat := image.NewNRGBA(image.Rect(0, 0, 1, 1))
	flat.SetNRGBA(0, 0, color.NRGBA{10, 20, 30, 0})
	if got := rgb(flat); !bytes.Equal(got, []byte{10, 20, 30}) {
		t.Errorf("transparent: % x", got)
	}
}

func TestBrokenImagesAreTold(t *testing.T) {
	good := asJPEG(t, pixels(64, 48))
	huge := asPNG(t, pixels(2, 2))
	binary.BigEndian.PutUint32(huge[16:], 8000) // of a file of 80 bytes
	binary.BigEndian.PutUint32(huge[20:], 8000)
	binary.BigEndian.PutUint32(huge[29:], crc32.ChecksumIEEE(huge[12:29]))
	for name, c := range map[string]struct {
		file []byte
		want string
	}{
		"empty":     {nil, "the file is empty"},
		"gif":       {[]byte("GIF89a…"), "offset 0: neither JPEG nor PNG: it starts with 47 49 46 38"},
		"truncated": {good[:len(good)/2], fmt.Sprintf("before offset %d of %[1]d: unexpected EOF", len(good)/2)},
		"head only": {good[:3], "before offset 3 of 3: "},
		"promise":   {huge, "the header says 8000×8000 pixels, which"},
	} {
		if err := small.Decode(c.file, make([]byte, small.Len())); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

func TestStepsAreChecked(t *testing.T) {
	for want, s := range map[string]Steps{
		"a size of 0×3":    {0, 3, "rgb", "box"},
		"a size of 3×8193": {3, 8193, "rgb", "box"},
		`colour "cmyk"`:    {3, 3, "cmyk", "box"},
		`filter "lanczos"`: {3, 3, "gray", "lanczos"},
	} {
		if err := s.Validate(); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%+v: %v, want %s", s, err, want)
		}
	}
	if err := small.Validate(); err != nil {
		t.Error(err)
	}
}

// FuzzDecode holds Decode to: no panic, and no more memory than a file can back.
func FuzzDecode(f *testing.F) {
	f.Add(asJPEG(f, pixels(16, 8)))
	f.Add(asPNG(f, pixels(5, 3)))
	f.Add(asPNG(f, image.NewPaletted(image.Rect(0, 0, 3, 3), color.Palette{color.Black, color.White})))
	f.Add(asPNG(f, image.NewGray16(image.Rect(0, 0, 3, 3))))
	f.Add(asJPEG(f, image.NewGray(image.Rect(0, 0, 9, 9))))
	f.Fuzz(func(t *testing.T, file []byte) {
		dst := make([]byte, small.Len())
		first := small.Decode(file, dst)
		again := make([]byte, small.Len())
		if second := small.Decode(file, again); (first == nil) != (second == nil) || !bytes.Equal(dst, again) {
			t.Fatal("one file, two results")
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	file := asJPEG(b, pixels(500, 375))
	s := Steps{Height: 150, Width: 150, Color: "rgb", Filter: "bilinear"}
	dst := make([]byte, s.Len())
	for b.Loop() {
		if err := s.Decode(file, dst); err != nil {
			b.Fatal(err)
		}
	}
}

// formats.json was written by formats.py, beside it. PNG files are the same to the
// byte; JPEG leaves open how a decoder rounds and how it widens colours that were
// stored coarsely: Pillow's smooths them, the standard library's doesn't. What lies
// between is bounded here. On 80 of the photos of the tests, all 4:2:0, it was 20 at
// most at full size, 0.83 in the mean, and 5 and 0.47 once resized to 150×150.
func TestEveryFormatIsAboutWhatPillowMakesOfIt(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("testdata", "formats.json"))
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Name          string
		Width, Height int
		File, Want    []byte
	}
	if err := json.Unmarshal(text, &cases); err != nil {
		t.Fatal(err)
	}
	most := map[string]int{
		"jpeg 4:4:4": 2, "jpeg progressive": 2, "jpeg oriented": 2, "jpeg restarts": 2, "jpeg gray": 1, "jpeg cmyk": 1,
		"jpeg 4:2:2": 16, "jpeg 4:2:0": 20,
	}
	if len(cases) != 16 {
		t.Fatalf("%d cases, want 16", len(cases))
	}
	for _, c := range cases {
		// An orientation in EXIF is left alone, as Pillow does: the sides stay what they are.
		s := Steps{Height: c.Height, Width: c.Width, Color: "rgb", Filter: "nearest"}
		got := make([]byte, s.Len())
		if err := s.Decode(c.File, got); err != nil {
			t.Errorf("%s: %v", c.Name, err)
			continue
		}
		if far := furthest(got, c.Want); far > most[c.Name] {
			t.Errorf("%s: a value is %d away from Pillow's, want at most %d", c.Name, far, most[c.Name])
		}
	}
}

func furthest(a, b []byte) (far int) {
	for i := range a {
		far = max(far, int(a[i])-int(b[i]), int(b[i])-int(a[i]))
	}
	return far
}

// Sixteen bits are cut down to the upper eight; Pillow cuts gray ones off at 255.
func TestGrayOfSixteenBitsKeepsTheUpperEight(t *testing.T) {
	deep := image.NewGray16(image.Rect(0, 0, 2, 1))
	deep.SetGray16(0, 0, color.Gray16{0x1280})
	deep.SetGray16(1, 0, color.Gray16{0xffff})
	s := Steps{Height: 1, Width: 2, Color: "gray", Filter: "nearest"}
	got := make([]byte, 2)
	if err := s.Decode(asPNG(t, deep), got); err != nil || got[0] != 0x12 || got[1] != 0xff {
		t.Errorf("% x, %v", got, err)
	}
}

// chunk is a part of a PNG file.
func chunk(kind string, data []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(data)))
	b = append(append(b, kind...), data...)
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b[4:]))
}

// header is a PNG file that has promised so much, with n bytes of nothing after it.
func header(w, h uint32, depth, kind byte, n int) []byte {
	b := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, w), h)
	file := append([]byte("\x89PNG\r\n\x1a\n"), chunk("IHDR", append(b, depth, kind, 0, 0, 0))...)
	return append(file, make([]byte, n)...)
}

// A header costs memory only where the file may keep what it says.
func TestPromisesOfAHeaderCostNoMemory(t *testing.T) {
	sof := func(kind byte, n int) []byte { // 8000×8000, three components
		return append([]byte{0xff, 0xd8, 0xff, kind, 0, 17, 8, 0x1f, 0x40, 0x1f, 0x40, 3, 1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0}, make([]byte, n)...)
	}
	for name, file := range map[string][]byte{
		"png, 64 bits":        header(8000, 8000, 16, 6, 490_000), // 8 bits would fit
		"png, 24 bits":        header(8000, 8000, 8, 2, 180_000),
		"png, 1 bit":          header(8000, 8000, 1, 0, 7_000),
		"png, too large":      header(1<<31-1, 1<<31-1, 8, 0, 1<<20),
		"png, an odd depth":   header(8000, 8000, 255, 6, 1000),
		"jpeg, baseline":      sof(0xc0, 120_000),
		"jpeg, progressive":   sof(0xc2, 120_000),
		"jpeg, a lonely mark": sof(0xc0, 0),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := small.Decode(file, make([]byte, small.Len()))
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; err == nil || used > 4<<20 {
			t.Errorf("%s: %d bytes allocated; %v", name, used, err)
		}
	}
}
