// The filter of filters/every_step.py on d--j/go-milter. Usage: bench-filter PATH every|noreply
//
// Where no answer was negotiated the library sends none, whatever a callback returns.
package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"

	"github.com/d--j/go-milter"
)

// Of connections that have ended.
var allOctets atomic.Uint64

// What is kept for a connection.
type connection struct {
	octets     uint64
	recipients int
	client     string
	helo       string
	sender     string
	params     string
	queueID    string
}

func (c *connection) NewConnection(milter.Modifier) error {
	return nil
}

func (c *connection) Connect(host, family string, port uint16, addr string, _ milter.Modifier) (*milter.Response, error) {
	c.client = host
	return milter.RespContinue, nil
}

func (c *connection) Helo(name string, _ milter.Modifier) (*milter.Response, error) {
	c.helo = name
	return milter.RespContinue, nil
}

func (c *connection) MailFrom(from, params string, _ milter.Modifier) (*milter.Response, error) {
	c.sender = from
	c.params = params
	c.recipients = 0
	return milter.RespContinue, nil
}

func (c *connection) RcptTo(to, params string, _ milter.Modifier) (*milter.Response, error) {
	c.recipients++
	return milter.RespContinue, nil
}

func (c *connection) Data(milter.Modifier) (*milter.Response, error) {
	return milter.RespContinue, nil
}

func (c *connection) Header(name, value string, _ milter.Modifier) (*milter.Response, error) {
	c.octets += uint64(len(name) + len(value))
	return milter.RespContinue, nil
}

func (c *connection) Headers(milter.Modifier) (*milter.Response, error) {
	return milter.RespContinue, nil
}

func (c *connection) BodyChunk(chunk []byte, _ milter.Modifier) (*milter.Response, error) {
	c.octets += uint64(len(chunk))
	return milter.RespContinue, nil
}

func (c *connection) Unknown(string, milter.Modifier) (*milter.Response, error) {
	return milter.RespContinue, nil
}

func (c *connection) EndOfMessage(m milter.Modifier) (*milter.Response, error) {
	c.queueID = m.Get(milter.MacroQueueId)
	return milter.RespContinue, nil
}

func (c *connection) Abort(milter.Modifier) error {
	return nil
}

func (c *connection) Cleanup(milter.Modifier) {
	allOctets.Add(c.octets)
}

func main() {
	options := []milter.Option{milter.WithMilter(func() milter.Milter { return &connection{} })}
	if os.Args[2] == "noreply" {
		options = append(options, milter.WithProtocols(milter.OptNoReplies))
	}
	server := milter.NewServer(options...)
	listener, err := net.Listen("unix", os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	go func() {
		<-stop
		_ = server.Close()
	}()
	if err := server.Serve(listener); err != nil && !errors.Is(err, milter.ErrServerClosed) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(allOctets.Load())
}
