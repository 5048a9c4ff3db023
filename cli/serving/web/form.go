package web

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"mime/multipart"
)

// encodedImage returns the image of a body: the body itself, or the only part of a form.
func encodedImage(contentType string, body []byte) ([]byte, error) {
	// A foreign or broken type is not worth a refusal: the image's own bytes say what it is.
	kind, options, _ := mime.ParseMediaType(contentType)
	if kind != "multipart/form-data" {
		if len(body) == 0 {
			return nil, invalid("the body is empty, expected an encoded image, such as a JPEG file")
		}
		return body, nil
	}
	form := multipart.NewReader(bytes.NewReader(body), options["boundary"])
	var image []byte
	for parts := 0; ; parts++ {
		part, err := form.NextPart()
		if errors.Is(err, io.EOF) && parts == 1 {
			return image, nil
		}
		if errors.Is(err, io.EOF) || err == nil && parts == 1 {
			return nil, invalid("the form has %s, expected one field, the image",
				map[int]string{0: "no field", 1: "several fields"}[parts])
		}
		if err == nil {
			image, err = io.ReadAll(part)
		}
		if err != nil {
			return nil, invalid("the form can't be read: %v", err)
		}
		if len(image) == 0 {
			return nil, invalid("the field %.100q is empty, expected an encoded image",
				part.FormName())
		}
	}
}
