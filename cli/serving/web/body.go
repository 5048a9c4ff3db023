package web

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// firstRead is how much is allocated on a header's word alone.
const firstRead = 1 << 20

// body reads a request's body, decompressed.
func (x *exchange) body(r *http.Request) ([]byte, error) {
	limit := x.limits.Body
	if r.ContentLength > limit {
		return nil, tooLarge(limit)
	}
	raw := http.MaxBytesReader(x.ResponseWriter, r.Body, limit)
	content, err := read(raw, r.ContentLength, limit)
	if err != nil {
		return nil, unread(r.Context(), err)
	}
	// What follows takes its own time: a read that waits for a closed connection must not end.
	http.NewResponseController(x.ResponseWriter).SetReadDeadline(time.Time{})
	return decompressed(r.Header.Get("Content-Encoding"), content, limit)
}

// unread says why a body was not read: slowness and size are known, all else is a client that went.
func unread(ctx context.Context, err error) error {
	var large *http.MaxBytesError
	if errors.As(err, &large) || errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	if ctx.Err() != nil || errors.Is(err, io.ErrUnexpectedEOF) {
		return context.Canceled
	}
	return invalid("the body can't be read: %v", err)
}

// read reads at most limit bytes, of which so many are expected.
func read(from io.Reader, expected, limit int64) ([]byte, error) {
	var b bytes.Buffer
	from = io.LimitReader(from, limit+1)
	b.Grow(int(min(max(expected, 0), firstRead)) + bytes.MinRead)
	if _, err := b.ReadFrom(io.LimitReader(from, firstRead)); err != nil {
		return nil, err
	}
	if rest := expected - int64(b.Len()); rest > 0 { // all at once, now that much has arrived
		b.Grow(int(rest) + bytes.MinRead)
	}
	if _, err := b.ReadFrom(from); err != nil {
		return nil, err
	}
	if int64(b.Len()) > limit {
		return nil, tooLarge(limit)
	}
	return b.Bytes(), nil
}

// decompressed undoes a Content-Encoding. Deflate means zlib's format there (RFC 9110, 8.4.1.2).
func decompressed(encoding string, content []byte, limit int64) ([]byte, error) {
	var from io.Reader
	var err error
	switch strings.ToLower(strings.TrimSpace(encoding)) {
	case "", "identity":
		return content, nil
	case "gzip", "x-gzip":
		from, err = gzip.NewReader(bytes.NewReader(content))
	case "deflate":
		from, err = zlib.NewReader(bytes.NewReader(content))
	default:
		return nil, refuse(http.StatusUnsupportedMediaType,
			"Content-Encoding is %.40q; it may be gzip or deflate, or left out", encoding)
	}
	if err == nil {
		content, err = read(from, int64(len(content)), limit)
	}
	var large *refusal
	if err != nil && !errors.As(err, &large) {
		return nil, invalid("the body is not %.40s, as its Content-Encoding says: %v", encoding,
			err)
	}
	return content, err
}

// compressors write the encodings that answers have; logits shrink little, so the fastest level.
var compressors = map[string]func(io.Writer) io.WriteCloser{
	"gzip": func(w io.Writer) io.WriteCloser {
		compressor, _ := gzip.NewWriterLevel(w, gzip.BestSpeed)
		return compressor
	},
	"deflate": func(w io.Writer) io.WriteCloser {
		compressor, _ := zlib.NewWriterLevel(w, zlib.BestSpeed)
		return compressor
	},
}

// accepted returns the first encoding of an Accept-Encoding that answers can have, "" for none.
func accepted(header string) string {
	for _, part := range strings.Split(header, ",") {
		encoding, quality, _ := strings.Cut(part, ";")
		encoding = strings.ToLower(strings.TrimSpace(encoding))
		value, isWeighted := strings.CutPrefix(strings.TrimSpace(quality), "q=")
		weight, err := strconv.ParseFloat(value, 64)
		if isWeighted && (err != nil || weight == 0) {
			continue
		}
		if compressors[encoding] != nil {
			return encoding
		}
	}
	return ""
}
