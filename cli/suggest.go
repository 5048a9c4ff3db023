package main

import (
	"strings"

	"github.com/xrash/smetrics"
)

// nearest returns the known word that was probably meant by another one, "" for none: the one of
// the fewest edits, if these are few beside its length, or the only one that begins or ends with
// the word.
func nearest(word string, known []string) (found string) {
	given := plain(word)
	least := (len(given)+2)/3 + 1
	for _, candidate := range known {
		// An exchange of two letters is two edits, and as near as a wrong letter is.
		edits := smetrics.WagnerFischer(given, plain(candidate), 1, 1, 1)
		if edits < least {
			found, least = candidate, edits
		}
	}
	if found != "" || len(given) < 3 {
		return found
	}
	for _, candidate := range known {
		other := plain(candidate)
		if strings.HasPrefix(other, given) || strings.HasSuffix(other, given) {
			if found != "" {
				return ""
			}
			found = candidate
		}
	}
	return found
}

// plain leaves out what people confuse: case, and the strokes between words.
func plain(word string) string {
	return strings.NewReplacer("-", "", "_", "", " ", "").Replace(strings.ToLower(word))
}

// didYouMeanOrSee begins a sentence that ends with where to look, and guesses what was meant.
func didYouMeanOrSee(prefix, word string, known []string) string {
	if guess := nearest(word, known); guess != "" {
		return "did you mean " + prefix + guess + "? See"
	}
	return "see"
}
