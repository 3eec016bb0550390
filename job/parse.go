package job

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Load reads and parses a job file.
func Load(path string) (*Job, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("job: %w", err)
	}
	return Parse(path, data)
}

// Parse reads a job made of the parts that this program knows; file is how
// messages call it. The error is an [Errors] with all that is wrong.
func Parse(file string, data []byte) (*Job, error) { return Standard().Parse(file, data) }

// Parse reads a job made of the registry's parts.
func (r Registry) Parse(file string, data []byte) (*Job, error) {
	return r.parse(file, data, func(string) bool { return false })
}

// Restore reads what Canonical wrote. The paths of data files are no part of
// it, so the data section may lack them.
func (r Registry) Restore(canonical []byte) (*Maths, error) {
	j, err := r.parse("job.json", canonical, func(field string) bool { return within(field, "data") })
	if err != nil {
		return nil, err
	}
	return &j.Maths, nil
}

// Restore reads what Canonical wrote, of the parts that this program knows.
func Restore(canonical []byte) (*Maths, error) { return Standard().Restore(canonical) }

// ParseData reads what stands under data: in a job file, such as mnist or
// image_folder: {path: photos}.
func ParseData(text string) (Section, error) {
	j, err := Standard().parse("data set", []byte("data:\n  "+strings.ReplaceAll(text, "\n", "\n  ")),
		func(field string) bool { return !within(field, "data") })
	if err != nil {
		return nil, err
	}
	return j.Data, nil
}

// parse reads a job; what exempt names is not checked.
func (r Registry) parse(file string, data []byte, exempt func(field string) bool) (*Job, error) {
	d := &decoder{source: source{file, map[string]int{"": 1}}, reg: r}
	j := r.Default()
	if root := d.document(data); root != nil {
		d.fields("", root, reflect.ValueOf(j).Elem())
		d.settle(j, exempt)
	}
	j.source = d.source
	if err := d.errs.sorted(); err != nil {
		return nil, err
	}
	return j, nil
}

// document parses the one YAML document of a file; nil after an error.
func (d *decoder) document(data []byte) *yaml.Node {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	err := dec.Decode(&doc)
	if errors.Is(err, io.EOF) || err == nil && doc.Content[0].ShortTag() == "!!null" {
		d.fail(1, "", "the file is empty (want a map of %s)", either(topLevel()))
		return nil
	}
	if err != nil {
		d.syntax(err)
		return nil
	}
	switch err := dec.Decode(&second); {
	case err == nil:
		d.fail(second.Content[0].Line, "", "a second document starts here (want one job in a file)")
	case !errors.Is(err, io.EOF):
		d.syntax(err)
	}
	d.lines[""] = doc.Content[0].Line
	if doc.Content[0].Kind != yaml.MappingNode {
		d.fail(d.lines[""], "", "%s (want a map of %s)", seen(doc.Content[0]), either(topLevel()))
		return nil
	}
	return doc.Content[0]
}

func topLevel() []string { return names(fieldsOf(reflect.ValueOf(&Job{}).Elem())) }

// yamlError is how the YAML reader words a complaint.
var yamlError = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)

// syntax records that the text is not YAML.
func (d *decoder) syntax(err error) {
	line, problem := 1, err.Error()
	if m := yamlError.FindStringSubmatch(problem); m != nil {
		problem = m[2]
		if n, err := strconv.Atoi(m[1]); err == nil {
			line = n
			if parserProblem.MatchString(problem) {
				line++
			}
		}
	}
	d.fail(line, "", "not YAML: %s", problem)
}

// parserProblem matches what the YAML reader's second stage says. It counts
// lines from 0 there, and from 1 in the first stage.
var parserProblem = regexp.MustCompile(`^did not find expected (<|node|key|',' or|'-' indicator)|^found (undefined tag|duplicate %)`)

// settle completes the job, checks it, and gives each complaint its line. What
// is said of a field that did not decode would be said of its default, so it is
// left out.
func (d *decoder) settle(j *Job, exempt func(field string) bool) {
	broken := d.errs
	if _, said := d.lines["batch.microbatch"]; !said && j.Batch.Global > 0 {
		j.Batch.Microbatch = min(j.Batch.Microbatch, j.Batch.Global)
	}
	c := &checker{reg: d.reg, broken: func(path string) bool {
		for _, e := range broken {
			if within(e.Field, path) || within(path, e.Field) && e.Field != "" {
				return true
			}
		}
		return exempt(path)
	}}
	c.job(j)
	for _, e := range c.errs {
		e.File, e.Line = d.file, d.line(e.Field)
		d.errs = append(d.errs, e)
	}
}
