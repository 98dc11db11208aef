package main

import "math/bits"

// spare has buffers to use again, by their capacity, which is a power of two. New memory costs more than the work done in it,
// because the system has to find and clear each page.
type spare struct {
	free  [32][][]byte
	bytes int
}

// maxSpare is the bound in bytes. Buffers beyond it are left to the garbage collector.
const maxSpare = 64 << 20

// take returns an empty buffer with room for this many bytes.
func (s *spare) take(size int) []byte {
	class := bits.Len(uint(max(size, 64) - 1))
	if class >= len(s.free) {
		return make([]byte, 0, size)
	}
	if n := len(s.free[class]); n > 0 {
		buffer := s.free[class][n-1]
		s.free[class] = s.free[class][:n-1]
		s.bytes -= cap(buffer)
		return buffer
	}
	return make([]byte, 0, 1<<class)
}

// give takes back a buffer that is not in use any more.
func (s *spare) give(buffer []byte) {
	class := bits.Len(uint(cap(buffer))) - 1
	if cap(buffer) == 1<<class && class < len(s.free) && s.bytes+cap(buffer) <= maxSpare {
		s.free[class] = append(s.free[class], buffer[:0])
		s.bytes += cap(buffer)
	}
}
