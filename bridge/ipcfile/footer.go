package ipcfile

import (
	"encoding/binary"

	"github.com/apache/arrow/go/v15/arrow"
)

// An Arrow file is "ARROW1" and two zeros, messages, the footer, its length as int32, and "ARROW1"
// again. The footer has the schema and says where the record batch stands: a message that describes
// it, then a body of buffers. Fields are numbered as in Arrow's File.fbs, Message.fbs and
// Schema.fbs.
const (
	magic        = "ARROW1"
	headBytes    = len(magic) + 2
	tailBytes    = 4 + len(magic)
	blockBytes   = 24
	continuation = 0xffffffff // stands before the length of a message, in files since Arrow 0.15

	oldestVersion, newestVersion = 3, 4 // V4 and V5, which differ in unions only
	recordBatch                  = 3    // of the kinds of message
)

// readFooter reads the schema, and finds the message and the body of the one record batch.
func readFooter(file []byte) (schema *arrow.Schema, message, body []byte, err error) {
	footer, rest, err := openFooter(file)
	if err != nil {
		return nil, nil, nil, err
	}
	if schema, err = readSchema(footer.child(1)); err != nil {
		return nil, nil, nil, err
	}
	message, body, err = onlyBatch(footer, rest)
	return schema, message, body, err
}

// openFooter finds the footer and returns it with the part of the file before it.
func openFooter(file []byte) (footer object, rest []byte, err error) {
	f := newFlatbuffer(file)
	end := len(file) - tailBytes
	if end < headBytes || string(file[:len(magic)]) != magic || string(file[end+4:]) != magic {
		f.fail("it doesn't begin and end as an Arrow file does")
		return object{in: f}, nil, f.err
	}
	start := end - int(f.number(end, 4))
	if start < headBytes {
		f.fail("its footer claims %d bytes, the file has %d", end-start, len(file))
		return object{in: f}, nil, f.err
	}
	f = newFlatbuffer(file[start:end])
	footer = f.root()
	checkVersion(footer)
	return footer, file[:start], f.err
}

// onlyBatch finds the one record batch that the footer names, in the part of the file before the
// footer.
func onlyBatch(footer object, file []byte) (message, body []byte, err error) {
	f := footer.in
	if dictionaries, _ := footer.vector(2, blockBytes); len(dictionaries) > 0 {
		f.fail("it holds %d dictionaries, agflow reads plain columns", len(dictionaries)/blockBytes)
	}
	blocks, _ := footer.vector(3, blockBytes)
	if len(blocks) != blockBytes {
		f.fail("it holds %d record batches, expected 1", len(blocks)/blockBytes)
	}
	if f.err != nil {
		return nil, nil, f.err
	}
	offset := binary.LittleEndian.Uint64(blocks)
	described := uint64(binary.LittleEndian.Uint32(blocks[8:]))
	values := binary.LittleEndian.Uint64(blocks[16:])
	length := uint64(len(file))
	if offset > length || described > length-offset || values > length-offset-described {
		f.fail("its record batch claims %d and %d bytes from byte %d on, the file has %d before "+
			"its footer", described, values, offset, length)
		return nil, nil, f.err
	}
	if offset%8 != 0 || described%8 != 0 {
		f.fail("its record batch stands at byte %d and its values %d bytes later, which are not "+
			"multiples of 8", offset, described)
	}
	return file[offset:][:described], file[offset+described:][:values], f.err
}

// openMessage unwraps the description of a record batch; its flatbuffer has the error, if there is
// one.
func openMessage(message []byte) object {
	f := newFlatbuffer(message)
	prefix, size := 4, f.number(0, 4)
	if size == continuation {
		prefix, size = 8, f.number(4, 4)
	}
	f.bytes = f.peek(prefix, int(size))
	header := f.root()
	checkVersion(header)
	if kind := header.number(1, 1); kind != recordBatch {
		f.fail("its message is of kind %d, expected a record batch (%d)", kind, recordBatch)
	}
	batch := header.child(2)
	if batch.has(3) {
		f.fail("its values are compressed, agflow reads uncompressed ones")
	}
	return batch
}

// checkVersion checks the first field of a footer or of a message.
func checkVersion(o object) {
	if version := o.number(0, 2); version < oldestVersion || version > newestVersion {
		o.in.fail("its Arrow metadata has version %d, expected %d or %d (V4 or V5)",
			version, oldestVersion, newestVersion)
	}
}
