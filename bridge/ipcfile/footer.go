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

// block is where a record batch stands in a file: the message that describes it, and its body.
type block struct{ message, body []byte }

// readFooter reads the schema, and finds the record batches.
func readFooter(file []byte) (schema *arrow.Schema, blocks []block, err error) {
	footer, rest, err := openFooter(file)
	if err != nil {
		return nil, nil, err
	}
	if schema, err = readSchema(footer.child(1)); err != nil {
		return nil, nil, err
	}
	blocks, err = allBatches(footer, rest)
	return schema, blocks, err
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

// allBatches finds the record batches that the footer names, in the part of the file before the
// footer. They do not overlap, so that a small file can't claim much.
func allBatches(footer object, file []byte) (found []block, err error) {
	f := footer.in
	if dictionaries, _ := footer.vector(2, blockBytes); len(dictionaries) > 0 {
		f.fail("it holds %d dictionaries, agflow reads plain columns", len(dictionaries)/blockBytes)
	}
	blocks, _ := footer.vector(3, blockBytes)
	if len(blocks) == 0 {
		f.fail("it holds 0 record batches, expected at least 1")
	}
	end, length := uint64(0), uint64(len(file))
	for ; len(blocks) > 0 && f.err == nil; blocks = blocks[blockBytes:] {
		offset := binary.LittleEndian.Uint64(blocks)
		described := uint64(binary.LittleEndian.Uint32(blocks[8:]))
		values := binary.LittleEndian.Uint64(blocks[16:])
		if offset > length || described > length-offset || values > length-offset-described {
			f.fail("its record batch claims %d and %d bytes from byte %d on, the file has %d "+
				"before its footer", described, values, offset, length)
			break
		}
		if offset < end {
			f.fail("its record batches overlap at byte %d", offset)
		}
		if offset%8 != 0 || described%8 != 0 {
			f.fail("its record batch stands at byte %d and its values %d bytes later, which are "+
				"not multiples of 8", offset, described)
		}
		end = offset + described + values
		found = append(found, block{file[offset:][:described], file[offset+described:][:values]})
	}
	return found, f.err
}

// openMessage unwraps the description of a record batch that can be read; its flatbuffer has the
// error, if there is one.
func openMessage(message []byte) object {
	batch := openHeader(message)
	if batch.has(3) {
		batch.in.fail("its values are compressed, agflow reads uncompressed ones")
	}
	return batch
}

// openHeader unwraps the description of a record batch.
func openHeader(message []byte) object {
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
	return header.child(2)
}

// checkVersion checks the first field of a footer or of a message.
func checkVersion(o object) {
	if version := o.number(0, 2); version < oldestVersion || version > newestVersion {
		o.in.fail("its Arrow metadata has version %d, expected %d or %d (V4 or V5)",
			version, oldestVersion, newestVersion)
	}
}
