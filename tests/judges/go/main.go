// A gRPC client and server with every default of grpc-go, for any bytes.
//
//	judge server ADDRESS
//	judge http1 ADDRESS (a plain HTTP/1.1 server that says "ok")
//	judge relay ADDRESS TARGET ROUND_TRIP BYTES_A_SECOND (a long path: 50ms 40000000)
//	judge client TARGET PATTERN RATE SECONDS
//
// The service is the same in each language: judge.Judge with Unary (bytes back), Feed (asked "rate count size", a stream of messages),
// Both (each message back) and Watch (one message, then silence until the call is cancelled). Here alone Take counts the bytes that it was sent.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
)

type raw struct{}

func (raw) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}

func (raw) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

func (raw) Name() string { return "raw" }

func stream(_ any, s grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(s)
	var message []byte
	switch method {
	case "/judge.Judge/Unary":
		if err := s.RecvMsg(&message); err != nil {
			return err
		}
		return s.SendMsg(&message)
	case "/judge.Judge/Both":
		for {
			if err := s.RecvMsg(&message); err == io.EOF {
				return nil
			} else if err != nil {
				return err
			}
			if err := s.SendMsg(&message); err != nil {
				return err
			}
		}
	case "/judge.Judge/Take":
		for n := 0; ; n += len(message) {
			if err := s.RecvMsg(&message); err == io.EOF {
				message = fmt.Append(nil, n)
				return s.SendMsg(&message)
			} else if err != nil {
				return err
			}
		}
	case "/judge.Judge/Feed":
		if err := s.RecvMsg(&message); err != nil {
			return err
		}
		var rate, count, size int
		fmt.Sscan(string(message), &rate, &count, &size)
		message = make([]byte, size)
		begin := time.Now()
		for n := range count {
			if err := s.SendMsg(&message); err != nil {
				return err
			}
			pace(begin, n+1, rate)
		}
		return nil
	default:
		if err := s.SendMsg(&message); err != nil {
			return err
		}
		<-s.Context().Done()
		return nil
	}
}

// Waits until n messages may have gone at this rate; 0 is as fast as it goes.
func pace(begin time.Time, n, rate int) {
	if rate > 0 {
		time.Sleep(time.Until(begin.Add(time.Duration(n) * time.Second / time.Duration(rate))))
	}
}

func main() {
	if os.Args[1] == "server" {
		listener, err := net.Listen("tcp", os.Args[2])
		check(err)
		fmt.Println("ready")
		check(grpc.NewServer(grpc.UnknownServiceHandler(stream), grpc.ForceServerCodecV2(raw{})).Serve(listener))
	}
	if os.Args[1] == "http1" {
		fmt.Println("ready")
		check(http.ListenAndServe(os.Args[2], http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			fmt.Fprint(w, "ok")
		})))
	}
	if os.Args[1] == "relay" {
		relay()
	}
	rate, _ := strconv.Atoi(os.Args[4])
	seconds, _ := strconv.ParseFloat(os.Args[5], 64)
	connection, err := grpc.NewClient("passthrough:///"+os.Args[2],
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(raw{})))
	check(err)
	begin := time.Now()
	n, err := 0, error(nil)
	switch os.Args[3] {
	case "unary":
		n, err = unary(connection, rate, seconds)
	case "feed":
		n, err = feed(connection, rate, int(seconds*float64(rate)), 1000)
	case "burst":
		n, err = feed(connection, 0, rate, 10)
	case "download":
		n, err = feed(connection, 0, rate, 50_000)
	case "upload":
		n, err = upload(connection, rate)
	case "both":
		n, err = both(connection, rate, seconds)
	case "cancel":
		n, err = cancel(connection, rate, seconds)
	}
	check(err)
	fmt.Printf("OK %d in %.2f s\n", n, time.Since(begin).Seconds())
}

func check(err error) {
	if err != nil {
		fmt.Println("FAILED", err)
		os.Exit(1)
	}
}

func call(ctx context.Context, c *grpc.ClientConn, method string, message []byte) ([]byte, error) {
	var answer []byte
	err := c.Invoke(ctx, "/judge.Judge/"+method, &message, &answer)
	return answer, err
}

func open(ctx context.Context, c *grpc.ClientConn, method string) (grpc.ClientStream, error) {
	return c.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/judge.Judge/"+method)
}

// Watch wants one message, as a server of any language reads it.
func watch(ctx context.Context, c *grpc.ClientConn) (grpc.ClientStream, error) {
	s, err := open(ctx, c, "Watch")
	if err != nil {
		return nil, err
	}
	if err := s.SendMsg(&[]byte{}); err != nil {
		return nil, err
	}
	return s, s.CloseSend()
}

func unary(c *grpc.ClientConn, rate int, seconds float64) (int, error) {
	begin, count := time.Now(), int(seconds*float64(rate))
	errs := make(chan error, count)
	var all sync.WaitGroup
	for n := range count {
		all.Go(func() {
			ctx, done := context.WithTimeout(context.Background(), 60*time.Second)
			defer done()
			if _, err := call(ctx, c, "Unary", make([]byte, 1000)); err != nil {
				errs <- err
			}
		})
		pace(begin, n+1, rate)
	}
	all.Wait()
	select {
	case err := <-errs:
		return 0, fmt.Errorf("%d of %d: %w", len(errs)+1, count, err)
	default:
		return count, nil
	}
}

func feed(c *grpc.ClientConn, rate, count, size int) (int, error) {
	s, err := open(context.Background(), c, "Feed")
	if err != nil {
		return 0, err
	}
	ask := fmt.Appendf(nil, "%d %d %d", rate, count, size)
	if err := s.SendMsg(&ask); err != nil {
		return 0, err
	}
	s.CloseSend()
	for n := 0; ; n++ {
		var message []byte
		if err := s.RecvMsg(&message); err == io.EOF && n == count {
			return n, nil
		} else if err != nil {
			return n, fmt.Errorf("after %d of %d: %w", n, count, err)
		}
	}
}

func both(c *grpc.ClientConn, rate int, seconds float64) (int, error) {
	s, err := open(context.Background(), c, "Both")
	if err != nil {
		return 0, err
	}
	begin, count := time.Now(), int(seconds*float64(rate))
	go func() {
		message := make([]byte, 100)
		for n := range count {
			if s.SendMsg(&message) != nil {
				return
			}
			pace(begin, n+1, rate)
		}
		s.CloseSend()
	}()
	for n := 0; ; n++ {
		var message []byte
		if err := s.RecvMsg(&message); err == io.EOF && n == count {
			return n, nil
		} else if err != nil {
			return n, fmt.Errorf("after %d of %d: %w", n, count, err)
		}
	}
}

// Three of four calls are given up: two after their first message, one before it. A quiet stream must not notice.
func cancel(c *grpc.ClientConn, rate int, seconds float64) (int, error) {
	quiet, err := watch(context.Background(), c)
	if err != nil {
		return 0, err
	}
	var message []byte
	if err := quiet.RecvMsg(&message); err != nil {
		return 0, err
	}
	ended := make(chan error, 1)
	go func() { var message []byte; ended <- quiet.RecvMsg(&message) }()
	begin, count := time.Now(), int(seconds*float64(rate))
	for n := range count {
		ctx, give_up := context.WithCancel(context.Background())
		if n%4 == 0 {
			if _, err := call(ctx, c, "Unary", []byte("x")); err != nil {
				give_up()
				return n, err
			}
		} else {
			s, err := watch(ctx, c)
			if err == nil && n%4 != 1 {
				var message []byte
				err = s.RecvMsg(&message)
			}
			if err != nil {
				give_up()
				return n, err
			}
		}
		give_up()
		select {
		case err := <-ended:
			return n, fmt.Errorf("the quiet stream ended: %w", err)
		default:
		}
		pace(begin, n+1, rate)
	}
	return count, nil
}

// As many messages of 50,000 bytes as fast as they go.
func upload(c *grpc.ClientConn, count int) (int, error) {
	s, err := open(context.Background(), c, "Take")
	if err != nil {
		return 0, err
	}
	message := make([]byte, 50_000)
	for range count {
		if err := s.SendMsg(&message); err != nil {
			return 0, err
		}
	}
	s.CloseSend()
	var answer []byte
	if err := s.RecvMsg(&answer); err != nil {
		return 0, err
	}
	if string(answer) != fmt.Sprint(count*len(message)) {
		return 0, fmt.Errorf("%s bytes of %d", answer, count*len(message))
	}
	return count, nil
}

// Passes connections on, each direction later by half of the round trip and no faster than it may be. What is under way waits here.
func relay() {
	listener, err := net.Listen("tcp", os.Args[2])
	check(err)
	trip, err := time.ParseDuration(os.Args[4])
	check(err)
	rate, err := strconv.Atoi(os.Args[5])
	check(err)
	fmt.Println("ready")
	for {
		one, err := listener.Accept()
		check(err)
		other, err := net.Dial("tcp", os.Args[3])
		check(err)
		go delay(one, other, trip/2, rate)
		go delay(other, one, trip/2, rate)
	}
}

func delay(from, to net.Conn, half time.Duration, rate int) {
	type piece struct {
		due   time.Time
		bytes []byte
	}
	pieces := make(chan piece, 1<<16)
	go func() {
		for next := range pieces {
			time.Sleep(time.Until(next.due))
			if _, err := to.Write(next.bytes); err != nil {
				from.Close()
			}
		}
		to.Close()
	}()
	free := time.Now()
	for {
		buffer := make([]byte, 32<<10)
		n, err := from.Read(buffer)
		if err != nil {
			close(pieces)
			return
		}
		if now := time.Now(); free.Before(now) {
			free = now
		}
		free = free.Add(time.Duration(n) * time.Second / time.Duration(rate))
		pieces <- piece{free.Add(half), buffer[:n]}
	}
}
