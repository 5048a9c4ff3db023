// Package strictjson reads the JSON of files and requests. Unlike encoding/json it refuses what
// would otherwise be a silent default: unknown, missing and repeated keys, keys that differ in
// their case, null, arrays of another length, numbers that are not finite, and text that is not
// UTF-8. Errors name the key, such as "point.accuracy".
package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"
)

// MaxBytes is the greatest size of a JSON file that is read.
const MaxBytes = 1 << 20

// Whole reads one JSON value over a pointer to a struct, or to a map or a slice of structs; every
// key of a struct must be there.
func Whole(content []byte, into any) error { return read(content, into, true) }

// Over reads one JSON object over a pointer to a struct that holds the defaults of the keys that
// are left out.
func Over(content []byte, into any) error { return read(content, into, false) }

func read(content []byte, into any, whole bool) error {
	if !utf8.Valid(content) {
		return errors.New("it is not UTF-8 text")
	}
	if err := checkNumbers(content); err != nil {
		return err
	}
	var raw json.RawMessage
	if err := json.Unmarshal(content, &raw); err != nil {
		return err
	}
	d := decoder{whole: whole}
	return d.value("", raw, reflect.ValueOf(into).Elem())
}

// checkNumbers refuses NaN and the infinities, which other languages write into what they call
// JSON, by the key that holds them. What is no JSON otherwise is the decoder's matter.
func checkNumbers(content []byte) error {
	key, text := "", ""
	for at := 0; at < len(content); at++ {
		switch b := content[at]; b {
		case '"':
			end := at + 1
			for end < len(content) && content[end] != '"' {
				if content[end] == '\\' {
					end++
				}
				end++
			}
			end = min(end, len(content))
			text = string(content[at+1 : end])
			at = end
		case ':':
			key = text
		case 'N', 'I', '-':
			for _, word := range []string{"NaN", "Infinity", "-Infinity"} {
				if bytes.HasPrefix(content[at:], []byte(word)) {
					return fmt.Errorf("%s is %s, expected a finite number", shown(key), word)
				}
			}
		}
	}
	return nil
}

// decoder reads values into Go's; whole refuses missing keys.
type decoder struct{ whole bool }

var rawType = reflect.TypeFor[json.RawMessage]()

// value reads raw, which is valid JSON, at a path of keys.
func (d decoder) value(path string, raw json.RawMessage, into reflect.Value) error {
	null := string(raw) == "null"
	switch kind := into.Kind(); {
	case into.Type() == rawType:
		into.SetBytes(raw)
		return nil
	case kind == reflect.Pointer:
		if null {
			into.SetZero()
			return nil
		}
		into.Set(reflect.New(into.Type().Elem()))
		return d.value(path, raw, into.Elem())
	case null:
		return fmt.Errorf("%s is null, expected %s", shown(path), words(into.Type()))
	case kind == reflect.Struct:
		return d.object(path, raw, into)
	case kind == reflect.Map:
		return d.mapping(path, raw, into)
	case kind == reflect.Slice, kind == reflect.Array:
		return d.list(path, raw, into)
	}
	if err := json.Unmarshal(raw, into.Addr().Interface()); err != nil {
		return wrong(path, raw, into.Type())
	}
	return nil
}

func (d decoder) object(path string, raw json.RawMessage, into reflect.Value) error {
	fields := map[string]reflect.Value{}
	names := collect(into, fields, nil)
	seen := map[string]bool{}
	err := pairs(path, raw, into.Type(), func(name string, value json.RawMessage) error {
		field, known := fields[name]
		switch {
		case !known:
			return fmt.Errorf("%s is not known here; the keys are %s", shown(joined(path, name)),
				strings.Join(names, ", "))
		case seen[name]:
			return fmt.Errorf("%s comes twice", shown(joined(path, name)))
		}
		seen[name] = true
		return d.value(joined(path, name), value, field)
	})
	if err != nil || !d.whole {
		return err
	}
	for _, name := range names {
		if !seen[name] {
			return fmt.Errorf("%s is missing", shown(joined(path, name)))
		}
	}
	return nil
}

// collect finds the fields of a struct by their keys, those of embedded structs too, and returns
// the keys in order.
func collect(of reflect.Value, fields map[string]reflect.Value, names []string) []string {
	for i := range of.NumField() {
		field := of.Type().Field(i)
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		switch {
		case field.Anonymous && name == "":
			names = collect(of.Field(i), fields, names)
		case field.IsExported() && name != "-":
			if name == "" {
				name = field.Name
			}
			fields[name] = of.Field(i)
			names = append(names, name)
		}
	}
	return names
}

func (d decoder) mapping(path string, raw json.RawMessage, into reflect.Value) error {
	into.Set(reflect.MakeMap(into.Type()))
	return pairs(path, raw, into.Type(), func(name string, value json.RawMessage) error {
		key := reflect.ValueOf(name).Convert(into.Type().Key())
		if into.MapIndex(key).IsValid() {
			return fmt.Errorf("%s comes twice", shown(joined(path, name)))
		}
		element := reflect.New(into.Type().Elem()).Elem()
		if err := d.value(joined(path, name), value, element); err != nil {
			return err
		}
		into.SetMapIndex(key, element)
		return nil
	})
}

func (d decoder) list(path string, raw json.RawMessage, into reflect.Value) error {
	var values []json.RawMessage
	if err := json.Unmarshal(raw, &values); err != nil {
		return wrong(path, raw, into.Type())
	}
	if into.Kind() == reflect.Slice {
		into.Set(reflect.MakeSlice(into.Type(), len(values), len(values)))
	}
	if len(values) != into.Len() {
		return fmt.Errorf("%s has %d values, expected %d", shown(path), len(values), into.Len())
	}
	for i, value := range values {
		if err := d.value(path+"["+strconv.Itoa(i)+"]", value, into.Index(i)); err != nil {
			return err
		}
	}
	return nil
}

// pairs calls step with every key and value of an object, in their order.
func pairs(
	path string, raw json.RawMessage, of reflect.Type, step func(string, json.RawMessage) error,
) error {
	if len(raw) == 0 || raw[0] != '{' {
		return wrong(path, raw, of)
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	if _, err := d.Token(); err != nil {
		return err
	}
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return err
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return err
		}
		if err := step(token.(string), value); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

func joined(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// maxShown is how much of a key or a value stands in an error.
const maxShown = 60

// shown is a key for people; it may be anybody's text.
func shown(path string) string {
	if path == "" {
		return "the JSON"
	}
	for _, r := range path {
		if r <= ' ' || r > '~' || r == '"' {
			return strconv.Quote(cut(path))
		}
	}
	return cut(path)
}

func cut(text string) string {
	if len(text) > maxShown {
		return strings.ToValidUTF8(text[:maxShown], "") + "…"
	}
	return text
}

func wrong(path string, raw json.RawMessage, of reflect.Type) error {
	return fmt.Errorf("%s is %s, expected %s", shown(path), cut(string(raw)), words(of))
}

// words says what a type is in JSON.
func words(of reflect.Type) string {
	switch of.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "a text"
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.Slice, reflect.Array:
		return "an array"
	case reflect.Struct, reflect.Map:
		return "an object"
	}
	if of.Kind() >= reflect.Uint && of.Kind() <= reflect.Uint64 {
		return "a whole number from 0"
	}
	return "a whole number"
}
