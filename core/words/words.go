// Package words guesses which of the known words was meant by one that is not known.
package words

import "strings"

// Nearest returns the known word that was probably meant by another one, "" for none: the one of
// the fewest edits, if these are few beside its length, or the only one that begins or ends with
// the word.
func Nearest(word string, known []string) (found string) {
	given := plain(word)
	least := (len(given)+2)/3 + 1
	for _, candidate := range known {
		if edits := editsBetween(given, plain(candidate)); edits < least {
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

// editsBetween counts the letters to change, add or leave out, and the neighbours to exchange, that
// make one word of another.
func editsBetween(from, to string) int {
	a, b := []rune(from), []rune(to)
	edits := make([][]int, len(a)+1) // between the first letters of both
	for i := range edits {
		edits[i] = make([]int, len(b)+1)
		for j := range edits[i] {
			switch {
			case i == 0 || j == 0:
				edits[i][j] = i + j
				continue
			case a[i-1] == b[j-1]:
				edits[i][j] = edits[i-1][j-1]
			default:
				edits[i][j] = 1 + min(edits[i-1][j-1], edits[i-1][j], edits[i][j-1])
			}
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				edits[i][j] = min(edits[i][j], 1+edits[i-2][j-2])
			}
		}
	}
	return edits[len(a)][len(b)]
}

// plain leaves out what people confuse: case, and the strokes between words.
func plain(word string) string {
	return strings.NewReplacer("-", "", "_", "", " ", "").Replace(strings.ToLower(word))
}

// DidYouMean is the end of a sentence that guesses what was meant, empty where nothing is near.
func DidYouMean(word string, known []string) string {
	if guess := Nearest(word, known); guess != "" {
		return ": did you mean " + guess + "?"
	}
	return ""
}
