package web

import (
	"bytes"
	"image"
	// The formats whose headers are read before anything is decoded.
	_ "image/gif"
	_ "image/jpeg"
	_ "image/png"
	"net/http"

	_ "golang.org/x/image/bmp"
	_ "golang.org/x/image/tiff"
	_ "golang.org/x/image/webp"
)

// checkPixels refuses an image whose header says that it has too many pixels. What Go can't read
// here is the decoder's to refuse, or to answer: it knows more formats.
func checkPixels(encoded []byte, limit int64) error {
	header, format, err := image.DecodeConfig(bytes.NewReader(encoded))
	if err != nil {
		return nil
	}
	if header.Width > 0 && int64(header.Height) > limit/int64(header.Width) {
		return refuse(http.StatusRequestEntityTooLarge, "the %s image is %d x %d, expected at "+
			"most %d pixels; make it smaller, the experts read it smaller anyway",
			format, header.Width, header.Height, limit)
	}
	return nil
}
