// Package session has what every caller of Quorate needs: a connection that fails over and retries,
// names for writes, reads that never go back, and the reasons of errors. The programs here share it;
// it is meant to be read, and copied.
package session

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	quorate "quorate.example/quorate/v1"
)

// Connect returns a connection to every node that target names: "ipv4:10.0.0.1:8080,10.0.0.2:8080",
// or a DNS name with an address for each, "dns:///quorate.example:8080".
//
// The service config spreads calls over the nodes, gives them ten seconds and sends them again after
// UNAVAILABLE, writes too: so every write here has a request id.
func Connect(target string) (*grpc.ClientConn, error) {
	path := os.Getenv("QUORATE_SERVICE_CONFIG")
	if path == "" {
		path = "examples/service_config/writes_with_request_id.json"
	}
	config, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	backOff := backoff.DefaultConfig
	backOff.MaxDelay = time.Second
	options := []grpc.DialOption{
		grpc.WithDefaultServiceConfig(string(config)),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backOff, MinConnectTimeout: 3 * time.Second}),
		// A node that vanished without a word is noticed after 15 s, also under a watch.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
		// A node is dialled directly: proxy variables mean the web.
		grpc.WithNoProxy(),
	}
	if list, ok := strings.CutPrefix(target, "ipv4:"); ok { // Go has no such resolver of its own
		addresses := []resolver.Address{}
		for _, address := range strings.Split(list, ",") {
			addresses = append(addresses, resolver.Address{Addr: address})
		}
		ours := manual.NewBuilderWithScheme("ipv4")
		ours.InitialState(resolver.State{Addresses: addresses})
		options = append(options, grpc.WithResolvers(ours))
		target = "ipv4:///quorate"
	}
	return grpc.NewClient(target, options...)
}

// Session is one caller's view of the store: what it has seen or written it sees from then on,
// whichever node answers. Any goroutine may use it.
type Session struct {
	Config  quorate.ConfigClient
	Cluster quorate.ClusterClient
	seen    atomic.Uint64 // the highest revision that an answer has shown
}

// New begins a session.
func New(connection *grpc.ClientConn) *Session {
	return &Session{
		Config:  quorate.NewConfigClient(connection),
		Cluster: quorate.NewClusterClient(connection),
	}
}

// Answer is any response.
type Answer interface {
	GetHeader() *quorate.ResponseHeader
}

// Saw notes the revision of an answer.
func (s *Session) Saw(answer Answer) {
	revision := answer.GetHeader().GetRevision()
	for seen := s.seen.Load(); seen < revision && !s.seen.CompareAndSwap(seen, revision); {
		seen = s.seen.Load()
	}
}

// Name returns the request_id and the request_revision of a write, once for all times that it is sent:
// it is done once.
func (s *Session) Name(ctx context.Context) (string, uint64, error) {
	if s.seen.Load() == 0 {
		answer, err := s.Cluster.Status(ctx, &quorate.StatusRequest{})
		if err != nil {
			return "", 0, err
		}
		s.Saw(answer)
	}
	return rand.Text(), s.seen.Load(), nil
}

// Read says how to read: the node that answers waits until it shows what this session has seen.
func (s *Session) Read() *quorate.ReadOptions {
	return &quorate.ReadOptions{MinRevision: s.seen.Load()}
}

// Call is a method of the Config client.
type Call[Request, Response any] func(context.Context, Request, ...grpc.CallOption) (Response, error)

// Certainly sends a named write until its outcome is known: an answer, or an error that is one.
//
// The connection has retried already. What is left is an outage longer than that, and a deadline that
// passed: neither says whether the write was done, and its name makes asking again safe.
func Certainly[Request any, Response Answer](ctx context.Context, s *Session,
	call Call[Request, Response], request Request) (Response, error) {
	const attempts = 10
	for attempt := 1; ; attempt++ {
		answer, err := call(ctx, request)
		if err == nil {
			s.Saw(answer)
			return answer, nil
		}
		switch status.Code(err) {
		case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.Unknown, codes.Internal:
			if attempt < attempts && ctx.Err() == nil {
				continue
			}
		}
		return answer, err
	}
}

// Reason returns the reason and the metadata of our ErrorInfo in an error; an empty reason: the error
// is not ours but gRPC's.
func Reason(err error) (string, map[string]string) {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.Domain == "quorate" {
			return info.Reason, info.Metadata
		}
	}
	return "", nil
}

// WriteError is the error in one answer of a Write stream; nil when it has none.
func WriteError(answer *quorate.WriteResponse) error {
	if answer.Code == 0 {
		return nil
	}
	var whole spb.Status
	if err := proto.Unmarshal(answer.Status, &whole); err != nil {
		return status.Error(codes.Code(answer.Code), answer.Message)
	}
	return status.ErrorProto(&whole)
}

// Main runs a program: what it fails with is said, and ends it.
func Main(usage string, arguments int, program func(ctx context.Context, s *Session, arguments []string) error) {
	if len(os.Args) != arguments+1 {
		fmt.Fprintln(os.Stderr, "usage:", usage)
		os.Exit(2)
	}
	connection, err := Connect(os.Args[1])
	if err == nil {
		defer connection.Close()
		err = program(context.Background(), New(connection), os.Args[2:])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
