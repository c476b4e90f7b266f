// Writes many items as fast as the cluster takes them: one stream, many writes on their way, each with
// an answer of its own. When the stream breaks, what was not answered is sent again under the same
// names, and nothing is done twice.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	quorate "quorate.example/quorate/v1"
	"quorate.example/session"
)

const (
	window     = 256 // unanswered at a time; the server reads ahead up to 1,024
	streamTime = time.Minute
)

// Of one write: not accepted for now, or not known. Its name makes sending it again safe.
func sendAgain(err error) bool {
	why, _ := session.Reason(err)
	code := status.Code(err)
	return code == codes.Unavailable || code == codes.DeadlineExceeded ||
		why == "QUEUE_FULL" || why == "REQUEST_IDS_FULL"
}

type pipeline struct {
	s          *session.Session
	unanswered []*quorate.WriteRequest // in order
	streams    int
	failed     int
	revision   uint64
}

func (p *pipeline) oneStream(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, streamTime)
	defer cancel() // ends the sender too
	stream, err := p.s.Config.Write(ctx)
	if err != nil {
		return err
	}
	slots := make(chan struct{}, window)
	go func(writes []*quorate.WriteRequest) {
		for _, write := range writes {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return
			}
			if stream.Send(write) != nil {
				return // Recv says why
			}
		}
		_ = stream.CloseSend()
	}(slices.Clone(p.unanswered))
	var again []*quorate.WriteRequest
	defer func() { p.unanswered = append(again, p.unanswered...) }()
	for {
		answer, err := stream.Recv() // in the order of the writes
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		<-slots
		write := p.unanswered[0]
		p.unanswered = p.unanswered[1:]
		switch err := session.WriteError(answer); {
		case err == nil:
			p.revision = answer.GetPut().Header.Revision
			p.s.Saw(answer.GetPut())
		case sendAgain(err):
			again = append(again, write)
		default:
			p.failed++
			fmt.Printf("%s: %v\n", write.GetPut().Key, err)
		}
	}
}

// Until every write has an answer.
func (p *pipeline) run(ctx context.Context) {
	for len(p.unanswered) > 0 {
		p.streams++
		if err := p.oneStream(ctx); err != nil {
			fmt.Fprintf(os.Stderr, "pipeline: %v; %d to go\n", err, len(p.unanswered))
			time.Sleep(100 * time.Millisecond)
		}
	}
}

func main() {
	session.Main("pipeline TARGET PREFIX COUNT", 3, func(ctx context.Context, s *session.Session, arguments []string) error {
		count, err := strconv.Atoi(arguments[1])
		if err != nil {
			return err
		}
		p := &pipeline{s: s}
		for i := range count {
			id, revision, err := s.Name(ctx)
			if err != nil {
				return err
			}
			p.unanswered = append(p.unanswered, &quorate.WriteRequest{Write: &quorate.WriteRequest_Put{
				Put: &quorate.PutRequest{Key: fmt.Sprintf("%s%06d", arguments[0], i),
					Value:     &quorate.PutRequest_Text{Text: fmt.Sprintf("value %d", i)},
					RequestId: id, RequestRevision: revision}}})
		}
		p.run(ctx)
		fmt.Printf("wrote %d items, the last at revision %d, over %d streams\n", count-p.failed, p.revision, p.streams)
		if p.failed > 0 {
			return fmt.Errorf("%d writes were refused", p.failed)
		}
		return nil
	})
}
