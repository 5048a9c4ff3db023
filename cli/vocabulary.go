package main

import (
	"slices"
	"strings"

	"agflow/core/criteria"
	"agflow/core/words"

	"github.com/urfave/cli/v2"
)

// vocabulary has all words that the value, or a value in the list, of a flag may be.
var vocabulary = map[string][]string{
	"criterion":  criteria.Names(),
	"criteria":   criteria.Names(),
	"compensate": {"ridge", "ridge_at_once", "mean", "none"},
	"dtype":      {"float32", "bfloat16"},
	"library":    {"torchvision", "timm", "transformers", "thirty"},
	"loss":       {"labels", "self", "features"},
	"nonfinite":  {"refuse", "skip"},
	"format":     {"onnx", "torch"},
	"on-alarm":   {"log", "escalate", "unready"},
	"crop-mode":  {"center", "squash", "border"},
	"interpolation": {
		"bicubic", "bilinear", "nearest", "lanczos", "box", "hamming",
	},
}

// beginnings has words that the value of a flag may begin with; others are possible.
var beginnings = map[string][]string{
	"model":    modelForms,
	"heavy":    modelForms,
	"dense":    modelForms,
	"data":     dataForms,
	"eval":     dataForms,
	"held-out": dataForms,
	"device":   {"cpu", "cuda", "cuda:"},
	"groups":   groupKinds,
	"widths":   append([]string{"uniform"}, criteria.Names()...),
	"prior":    {"auto", "max_probability", "margin", "entropy", "agreement"},
}

// groupKinds are the kinds of groups that agflow's own adapters declare; a table may have others.
var groupKinds = []string{"mlp", "heads", "head_dim", "embed", "conv", "stage", "block"}

// checkWords refuses the words of flags that are not in the vocabulary.
func checkWords(c *cli.Context) error {
	for _, flag := range c.Command.Flags {
		name := flag.Names()[0]
		known, closed := vocabulary[name]
		if !closed || !c.IsSet(name) {
			continue
		}
		given := c.StringSlice(name)
		if text, isText := flag.(*cli.StringFlag); isText {
			given = []string{c.String(text.Name)}
		}
		for _, word := range given {
			if err := oneOf("--"+name, word, known); err != nil {
				return err
			}
		}
	}
	return nil
}

// oneOf refuses a word that is not known, and guesses what was meant.
func oneOf(name, word string, known []string) error {
	if slices.Contains(known, word) {
		return nil
	}
	return usageError("%s is %q, expected one of %s%s", name, word, strings.Join(known, ", "),
		words.DidYouMean(word, known))
}

// valuesOf are the words that the value of a flag may become, after the commas of a list and the
// colon of a form.
func valuesOf(flag cli.Flag, current string) (found []string) {
	name := flag.Names()[0]
	if text, isText := flag.(*cli.StringFlag); isText && text.TakesFile {
		return nil // the shell knows them
	}
	if form, path, isForm := strings.Cut(current, ":"); isForm && slices.Contains(pathForms, form) {
		for _, path := range pathsFrom(path) {
			found = append(found, form+":"+path)
		}
		return found
	}
	before := ""
	if _, isList := flag.(*cli.StringSliceFlag); isList {
		before = current[:strings.LastIndexByte(current, ',')+1]
	}
	for _, word := range slices.Concat(vocabulary[name], beginnings[name]) {
		found = append(found, before+word)
	}
	return found
}
