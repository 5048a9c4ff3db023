package main

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf16"
)

// printable keeps what files and their names hold from steering a terminal: control characters and
// those that turn the direction of a line are written as JSON would, other text as it is.
func printable(text string) string { return escaped(text, "\n\t") }

// oneLine is printable for what stands in a line of its own, where a line break would forge one.
func oneLine(text string) string { return escaped(text, "") }

func escaped(text, kept string) string {
	unsafe := func(r rune) bool {
		return (unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == '\u2028' ||
			r == '\u2029') && !strings.ContainsRune(kept, r)
	}
	text = strings.ToValidUTF8(text, "\uFFFD")
	if !strings.ContainsFunc(text, unsafe) {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		switch {
		case !unsafe(r):
			b.WriteRune(r)
		case r < 1<<16:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		}
	}
	return b.String()
}
