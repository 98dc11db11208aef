package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"golang.org/x/sys/unix"
)

// The windows that Envoy 1.40 grants its control plane.
const (
	streamWindow     = 16 << 20
	connectionWindow = 24 << 20
)

const (
	plainWindow = 65_535 // HTTP/2's default window
	plainFrame  = 16_384 // HTTP/2's default frame size, and the limit of this program
	headSize    = 9      // bytes of a frame's header
)

// conn is one connection with one stream, number 1, as a gRPC client has it.
type conn struct {
	in    []byte // the first bytes of a frame that is not complete
	msg   []byte // the first bytes of a message that is not complete, with its head; with `like`, the bytes that differ from that
	like  *body  // the body that an incomplete long message begins like; mostly nil
	same  int    // the number of equal bytes
	size  int    // the size of that message, without its head
	out   []byte // bytes that the socket has not accepted yet
	queue []byte // bytes that wait for the server's window

	streamOut, connOut, initialOut int64 // the server's windows
	frame                          int   // the server's largest frame
	unread                         int   // bytes of data since the last window update
	accepted                       bool  // the response headers have come
}

// wire reads and writes frames for the connections of one loop, one connection at a time.
type wire struct {
	reader  bytes.Reader
	framer  *http2.Framer
	sink    bytes.Buffer
	decoder *hpack.Decoder // has no state, since this program allows no dynamic table
	fields  []hpack.HeaderField
	opening map[string][]byte // by path
	target  string
	buffer  []byte // bytes that were read from a socket
	spare   spare
	bodies  bodies
}

// The most bytes that one read takes, beside those left over from the read before.
const readSize = 256 << 10

func newWire(target string) *wire {
	w := &wire{opening: map[string][]byte{}, target: target, buffer: make([]byte, headSize+plainFrame+readSize)}
	w.reset()
	return w
}

// reset clears the state that a broken connection may have left.
func (w *wire) reset() {
	w.framer = http2.NewFramer(&w.sink, &w.reader)
	w.framer.SetReuseFrames()
	w.decoder = hpack.NewDecoder(0, func(f hpack.HeaderField) { w.fields = append(w.fields, f) })
}

// open writes the first bytes of a connection: the preface, settings, and the headers of the stream.
func (w *wire) open(c *conn, path string) {
	*c = conn{in: c.in[:0], streamOut: plainWindow, connOut: plainWindow, initialOut: plainWindow, frame: plainFrame}
	if w.opening[path] == nil {
		var b bytes.Buffer
		b.WriteString(http2.ClientPreface)
		f := http2.NewFramer(&b, nil)
		must(f.WriteSettings(
			http2.Setting{ID: http2.SettingHeaderTableSize, Val: 0},
			http2.Setting{ID: http2.SettingEnablePush, Val: 0},
			http2.Setting{ID: http2.SettingInitialWindowSize, Val: streamWindow},
		))
		must(f.WriteWindowUpdate(0, connectionWindow-plainWindow))
		var block bytes.Buffer
		encoder := hpack.NewEncoder(&block)
		encoder.SetMaxDynamicTableSizeLimit(0)
		for _, pair := range [][2]string{
			{":method", "POST"}, {":scheme", "http"}, {":path", path}, {":authority", w.target},
			{"te", "trailers"}, {"content-type", "application/grpc"}, {"user-agent", "turnout-bench-fleet"},
		} {
			must(encoder.WriteField(hpack.HeaderField{Name: pair[0], Value: pair[1]}))
		}
		must(f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true}))
		w.opening[path] = b.Bytes()
	}
	w.sink.Write(w.opening[path])
}

// send queues one gRPC message, and writes as much as the server's windows allow.
func (w *wire) send(c *conn, message []byte) {
	if len(c.queue) == 0 && int64(len(message)+5) <= min(c.streamOut, c.connOut) && len(message)+5 <= c.frame {
		// The usual case: one frame, at once.
		size := len(message) + 5
		var head [14]byte
		head[0], head[1], head[2] = byte(size>>16), byte(size>>8), byte(size)
		head[3] = byte(http2.FrameData)
		head[8] = 1
		binary.BigEndian.PutUint32(head[10:], uint32(len(message)))
		w.sink.Write(head[:])
		w.sink.Write(message)
		c.streamOut -= int64(size)
		c.connOut -= int64(size)
		return
	}
	c.queue = append(c.queue, 0)
	c.queue = binary.BigEndian.AppendUint32(c.queue, uint32(len(message)))
	c.queue = append(c.queue, message...)
	w.drain(c)
}

func (w *wire) drain(c *conn) {
	for len(c.queue) > 0 {
		n := min(int64(len(c.queue)), c.streamOut, c.connOut, int64(c.frame))
		if n <= 0 {
			return
		}
		must(w.framer.WriteData(1, false, c.queue[:n]))
		c.queue = c.queue[n:]
		c.streamOut -= n
		c.connOut -= n
	}
	c.queue = nil
}

// room returns the buffer for the next read of at most `max` bytes.
func (w *wire) room(c *conn, max int) []byte { return w.buffer[len(c.in) : len(c.in)+max] }

// read handles the n bytes that were read into the room, frame by frame, and passes whole messages to f, which must not keep
// them. The error is the reason why the stream has ended.
func (w *wire) read(c *conn, n int, f func(message) error) error {
	data := w.buffer[:len(c.in)+n]
	copy(data, c.in)
	for len(data) >= headSize {
		size := int(data[0])<<16 + int(data[1])<<8 + int(data[2])
		if size > plainFrame {
			return errors.New("a frame above the maximum size")
		}
		if size += headSize; size > len(data) {
			break
		} else if err := w.one(c, data[:size], f); err != nil {
			return err
		} else {
			data = data[size:]
		}
	}
	if len(data) == 0 && cap(c.in) > 4096 {
		c.in = nil // mostly nothing is left over; without this, thousands of proxies would keep large buffers
	} else {
		c.in = append(c.in[:0], data...)
	}
	return nil
}

func (w *wire) one(c *conn, data []byte, f func(message) error) error {
	if data[3] == byte(http2.FrameData) && data[4]&^byte(http2.FlagDataEndStream) == 0 {
		// The usual case, which needs no copy. The framer handles padding.
		return w.data(c, data[headSize:], len(data)-headSize, data[4] != 0, f)
	}
	w.reader.Reset(data)
	frame, err := w.framer.ReadFrame()
	if err != nil {
		w.reset()
		return fmt.Errorf("bad frame: %w", err)
	}
	switch frame := frame.(type) {
	case *http2.DataFrame:
		return w.data(c, frame.Data(), int(frame.Length), frame.StreamEnded(), f)
	case *http2.HeadersFrame:
		return w.headers(c, frame)
	case *http2.SettingsFrame:
		if frame.IsAck() {
			return nil
		}
		must(frame.ForeachSetting(func(s http2.Setting) error {
			switch s.ID {
			case http2.SettingInitialWindowSize:
				c.streamOut += int64(s.Val) - c.initialOut
				c.initialOut = int64(s.Val)
			case http2.SettingMaxFrameSize:
				c.frame = int(s.Val)
			}
			return nil
		}))
		must(w.framer.WriteSettingsAck())
		w.drain(c)
	case *http2.WindowUpdateFrame:
		if frame.StreamID == 0 {
			c.connOut += int64(frame.Increment)
		} else {
			c.streamOut += int64(frame.Increment)
		}
		w.drain(c)
	case *http2.PingFrame:
		if !frame.IsAck() {
			must(w.framer.WritePing(true, frame.Data))
		}
	case *http2.RSTStreamFrame:
		return fmt.Errorf("stream reset: %v", frame.ErrCode)
	case *http2.GoAwayFrame:
		// The stream may go on until the server ends it.
		if frame.LastStreamID < 1 {
			return fmt.Errorf("GOAWAY: %v", frame.ErrCode)
		}
	}
	return nil
}

// messageSize returns the size of a message that begins with these bytes, with its head of five bytes. Before the head is
// complete, it returns the size of the head.
func messageSize(data []byte) int {
	if len(data) < 5 {
		return 5
	}
	return 5 + int(binary.BigEndian.Uint32(data[1:]))
}

// gather appends missing bytes to a message, and returns it and the remaining data.
func (w *wire) gather(message, data []byte) (gathered, remaining []byte) {
	for len(message) < messageSize(message) && len(data) > 0 {
		size := messageSize(message)
		if size > cap(message) {
			longer := append(w.spare.take(size), message...)
			w.spare.give(message)
			message = longer
		}
		n := min(size-len(message), len(data))
		message, data = append(message, data[:n]...), data[n:]
	}
	return message, data
}

// piece returns the message that ends in the data, and the remaining data; no message if it is not complete. One of three things
// happens: the data has a whole message, a long message is compared with an earlier one, or an incomplete message is kept.
func (w *wire) piece(c *conn, data []byte) (message, []byte) {
	if c.like == nil && len(c.msg) == 0 {
		size := messageSize(data)
		if size <= len(data) {
			return message{own: data[:size]}, data[size:]
		}
		if c.like = w.bodies.find(data, size-5); c.like == nil {
			c.msg = append(w.spare.take(size), data...)
			return message{}, nil
		}
		c.same, c.size, data = 0, size-5, data[5:]
	}
	if c.like == nil {
		c.msg, data = w.gather(c.msg, data)
		if len(c.msg) < messageSize(c.msg) {
			return message{}, nil
		}
		return message{own: c.msg}, data
	}
	n := min(c.size-c.same-len(c.msg), len(data))
	piece := data[:n]
	if c.msg == nil {
		same := common(piece, c.like.bytes[c.same:])
		c.same += same
		if piece = piece[same:]; len(piece) > 0 || c.same == c.size {
			c.msg = w.spare.take(c.size - c.same)
		}
	}
	c.msg = append(c.msg, piece...)
	if c.same+len(c.msg) < c.size {
		return message{}, nil
	}
	return message{like: c.like, same: c.same, own: c.msg}, data[n:]
}

// data handles the messages in a DATA frame of `size` bytes.
func (w *wire) data(c *conn, data []byte, size int, ended bool, f func(message) error) error {
	c.unread += size
	if c.unread > streamWindow/2 {
		must(w.framer.WriteWindowUpdate(0, uint32(c.unread)))
		must(w.framer.WriteWindowUpdate(1, uint32(c.unread)))
		c.unread = 0
	}
	for len(data) > 0 {
		var m message
		if m, data = w.piece(c, data); m.own == nil {
			break
		}
		if m.like == nil {
			if m.own[0] != 0 {
				return errors.New("a compressed message")
			}
			m.own = m.own[5:]
		}
		if err := f(m); err != nil {
			return err
		}
		if c.msg != nil {
			w.spare.give(c.msg)
			c.msg, c.like = nil, nil
		}
	}
	if ended {
		return io.EOF
	}
	return nil
}

func (w *wire) headers(c *conn, frame *http2.HeadersFrame) error {
	w.fields = w.fields[:0]
	_, err := w.decoder.Write(frame.HeaderBlockFragment())
	if err = errors.Join(err, w.decoder.Close()); err != nil || !frame.HeadersEnded() {
		w.reset()
		return fmt.Errorf("invalid headers: %w", err)
	}
	status, message := "", ""
	for _, f := range w.fields {
		switch f.Name {
		case ":status":
			if f.Value != "200" {
				return errors.New("HTTP status " + strconv.Quote(f.Value))
			}
			c.accepted = true
		case "grpc-status":
			status = f.Value
		case "grpc-message":
			message = f.Value
		}
	}
	if frame.StreamEnded() {
		return fmt.Errorf("ended with status %s %s", status, message)
	}
	return nil
}

// dial starts to connect. The socket is writable once it is connected, or has failed.
func dial(address unix.Sockaddr) (int, error) {
	if secure != nil {
		return dialTLS(address)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	must(unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1))
	// Close without TIME_WAIT: in storms, ports would run out.
	must(unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}))
	if err := unix.Connect(fd, address); err != nil && err != unix.EINPROGRESS {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
