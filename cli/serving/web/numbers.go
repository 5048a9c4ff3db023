package web

import (
	"bytes"
	"encoding/binary"
	"math"
	"strconv"

	"agflow/core/tensor"
)

// widths are the bytes of an element of the types that convert to float32 without a guess.
var widths = map[string]int{fp16: 2, bf16: 2, fp32: 4, fp64: 8}

var little = binary.LittleEndian

// floats converts the little-endian elements of images of so many each.
func floats(datatype string, b []byte, each int) ([]float32, error) {
	images := make([]float32, len(b)/widths[datatype])
	read := readers[datatype]
	for i := range images {
		if images[i] = read(b, i); images[i]-images[i] != 0 { // NaN or an infinity
			return nil, notFinite(i, each)
		}
	}
	return images, nil
}

func notFinite(element, each int) *refusal {
	return invalid("image %d (from 0) has a value that is not a finite float32, at element %d; "+
		"look for NaN or infinities in what you send", element/each, element%each)
}

// readers return element i of a type.
var readers = map[string]func(b []byte, i int) float32{
	fp16: func(b []byte, i int) float32 {
		return tensor.Float16(little.Uint16(b[2*i:])).Float32()
	},
	bf16: func(b []byte, i int) float32 {
		return tensor.BFloat16(little.Uint16(b[2*i:])).Float32()
	},
	fp32: func(b []byte, i int) float32 { return math.Float32frombits(little.Uint32(b[4*i:])) },
	fp64: func(b []byte, i int) float32 {
		return float32(math.Float64frombits(little.Uint64(b[8*i:])))
	},
}

// dataKey is the key of an input's numbers.
var dataKey = []byte(`"data"`)

// liftNumbers takes the arrays of numbers at keys "data" out of JSON, and leaves 0 in their places:
// the strict reader reads what is left, which is short. It returns the last array; there is one, or
// the strict reader refuses what is left.
func liftNumbers(content []byte) (left, numbers []byte, err error) {
	left = make([]byte, 0, min(len(content), firstRead))
	for at := 0; at < len(content); {
		if content[at] != '"' {
			left = append(left, content[at])
			at++
			continue
		}
		end := at + 1 + stringLength(content[at+1:])
		key := content[at:end]
		left = append(left, key...)
		at = end
		if !bytes.Equal(key, dataKey) {
			continue
		}
		colon := at + spaces(content[at:])
		if colon == len(content) || content[colon] != ':' {
			continue // a text, no key
		}
		first := colon + 1 + spaces(content[colon+1:])
		if first == len(content) || content[first] != '[' {
			return nil, nil, invalid("data is not an array, expected one of numbers")
		}
		if at, err = endOfArray(content, first); err != nil {
			return nil, nil, err
		}
		left, numbers = append(left, ":0"...), content[first:at]
	}
	return left, numbers, nil
}

// stringLength is the length of a string's content and its closing quote.
func stringLength(content []byte) int {
	for at := 0; at < len(content); at++ {
		switch content[at] {
		case '\\':
			at++
		case '"':
			return at + 1
		}
	}
	return len(content)
}

func isSpace(b byte) bool { return b == ' ' || b == '\t' || b == '\n' || b == '\r' }

func spaces(content []byte) (n int) {
	for n < len(content) && isSpace(content[n]) {
		n++
	}
	return n
}

// endOfArray returns what follows an array of numbers, or of arrays of them.
func endOfArray(content []byte, at int) (int, error) {
	for open := 0; at < len(content); at++ {
		switch b := content[at]; {
		case b == '[':
			open++
		case b == ']':
			if open--; open == 0 {
				return at + 1, nil
			}
		case b >= '0' && b <= '9', b == ',', b == '.', b == '-', b == '+', b == 'e', b == 'E',
			isSpace(b):
		default:
			return 0, invalid("data holds %.20q, expected finite numbers alone",
				content[at:min(at+20, len(content))])
		}
	}
	return 0, invalid("the request's JSON ends within data")
}

// numberParser reads a JSON array of numbers of a shape, flat or nested as the shape says.
type numberParser struct {
	content []byte
	at      int
	bits    int // that numbers are rounded to, before float32
	each    int // numbers of an image
	images  []float32
}

// parseNumbers reads the numbers of images of a shape [n, C, H, W].
func parseNumbers(content []byte, datatype string, shape []int64) ([]float32, error) {
	bits := map[string]int{fp32: 32, fp64: 64}[datatype]
	if bits == 0 {
		return nil, invalid("JSON has no numbers of %s; send them behind the JSON, with the "+
			"parameter binary_data_size", datatype)
	}
	each := shape[1] * shape[2] * shape[3]
	if shape[0] > int64(len(content)) || shape[0]*each > int64(len(content)) {
		return nil, invalid("data ends before its shape %v does", shape)
	}
	total := shape[0] * each
	p := numberParser{
		content: content, bits: bits, each: int(each), images: make([]float32, 0, total),
	}
	if second := 1 + spaces(content[1:]); content[second] != '[' {
		shape = []int64{total}
	}
	if err := p.array(shape); err != nil {
		return nil, err
	}
	return p.images, nil
}

// array reads an array of the shape; its numbers follow the others.
func (p *numberParser) array(shape []int64) error {
	if !p.next('[') {
		return p.wrong("[")
	}
	for i := range shape[0] {
		if i > 0 && !p.next(',') {
			return p.wrong(strconv.FormatInt(shape[0], 10) + " entries")
		}
		if len(shape) > 1 {
			if err := p.array(shape[1:]); err != nil {
				return err
			}
			continue
		}
		value, err := p.number()
		if err != nil {
			return err
		}
		p.images = append(p.images, value)
	}
	if !p.next(']') {
		return p.wrong("] after " + strconv.FormatInt(shape[0], 10) + " entries")
	}
	return nil
}

// next skips spaces and the byte that is expected, where it comes.
func (p *numberParser) next(b byte) bool {
	p.at += spaces(p.content[p.at:])
	if p.at == len(p.content) || p.content[p.at] != b {
		return false
	}
	p.at++
	return true
}

func (p *numberParser) wrong(expected string) error {
	return invalid("data has %.20q behind number %d, expected %s, as the shape says",
		p.content[p.at:min(p.at+20, len(p.content))], len(p.images), expected)
}

func (p *numberParser) number() (float32, error) {
	p.at += spaces(p.content[p.at:])
	length := numberLength(p.content[p.at:])
	if length == 0 {
		return 0, p.wrong("a number")
	}
	value, err := strconv.ParseFloat(string(p.content[p.at:p.at+length]), p.bits)
	if small := float32(value); err != nil || small-small != 0 {
		return 0, notFinite(len(p.images), p.each)
	}
	p.at += length
	return float32(value), nil
}

// numberLength is the length of the JSON number that content begins with, 0 for none.
func numberLength(content []byte) int {
	at := 0
	if at < len(content) && content[at] == '-' {
		at++
	}
	whole := digits(content[at:])
	if whole == 0 || whole > 1 && content[at] == '0' {
		return 0
	}
	at += whole
	if at < len(content) && content[at] == '.' {
		fraction := digits(content[at+1:])
		if fraction == 0 {
			return 0
		}
		at += 1 + fraction
	}
	if at < len(content) && (content[at] == 'e' || content[at] == 'E') {
		at++
		if at < len(content) && (content[at] == '+' || content[at] == '-') {
			at++
		}
		exponent := digits(content[at:])
		if exponent == 0 {
			return 0
		}
		at += exponent
	}
	return at
}

func digits(content []byte) (n int) {
	for n < len(content) && content[n] >= '0' && content[n] <= '9' {
		n++
	}
	return n
}
