package main

import "math/bits"

// spare is buffers that wait to be used again, by the power of two that they have room for. Fresh memory costs more than what is
// done with it: the system has to find and clear each page.
type spare struct {
	free  [32][][]byte
	bytes int
}

// Bytes that are kept at most; what is given beyond that is left to the collector.
const mostSpare = 64 << 20

// take is an empty buffer with room for this many bytes.
func (s *spare) take(size int) []byte {
	class := bits.Len(uint(max(size, 64) - 1))
	if class >= len(s.free) {
		return make([]byte, 0, size)
	}
	if n := len(s.free[class]); n > 0 {
		found := s.free[class][n-1]
		s.free[class] = s.free[class][:n-1]
		s.bytes -= cap(found)
		return found
	}
	return make([]byte, 0, 1<<class)
}

// give takes a buffer back that nobody looks at any more.
func (s *spare) give(buffer []byte) {
	class := bits.Len(uint(cap(buffer))) - 1
	if cap(buffer) == 1<<class && class < len(s.free) && s.bytes+cap(buffer) <= mostSpare {
		s.free[class] = append(s.free[class], buffer[:0])
		s.bytes += cap(buffer)
	}
}
