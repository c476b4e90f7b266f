// Keeps a copy of a prefix in a file and prints every change of it, once, over broken connections, lost
// nodes and its own restarts.
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/durationpb"

	quorate "quorate.example/quorate/v1"
	"quorate.example/session"
)

const (
	progress = 5 * time.Second
	silence  = 15 * time.Second // a stream that says nothing for so long is dead: it would bring progress marks
)

var errNoMoreUse = errors.New("this stream is of no more use")

func note(format string, values ...any) {
	fmt.Fprintf(os.Stderr, "watch: "+format+"\n", values...)
}

// The items, and the revision that goes on after them. They are changed together and saved as one file,
// so that a crash leaves neither a gap nor a change to be told twice.
type mirror struct {
	path    string
	cluster string
	resume  uint64 // 0: nothing is known, begin with the state
	items   map[string]*quorate.Item
}

func open(path string) (*mirror, error) {
	m := &mirror{path: path, items: map[string]*quorate.Item{}}
	json, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	saved := &quorate.ListResponse{}
	if err == nil {
		err = protojson.Unmarshal(json, saved)
	}
	m.cluster, m.resume = saved.Header.GetClusterId(), saved.Header.GetRevision()+1
	for _, item := range saved.Items {
		m.items[item.Key] = item
	}
	return m, err
}

func (m *mirror) save(message *quorate.WatchResponse) error {
	m.cluster, m.resume = message.Header.ClusterId, message.ResumeRevision
	saved := &quorate.ListResponse{Header: &quorate.ResponseHeader{ClusterId: m.cluster, Revision: m.resume - 1}}
	for _, key := range slices.Sorted(maps.Keys(m.items)) {
		saved.Items = append(saved.Items, m.items[key])
	}
	json, err := protojson.Marshal(saved)
	if err != nil {
		return err
	}
	if err = os.WriteFile(m.path+".new", json, 0o644); err != nil {
		return err
	}
	return os.Rename(m.path+".new", m.path)
}

func (m *mirror) apply(events []*quorate.WatchEvent) {
	for _, event := range events {
		item, word := event.Item, "put"
		switch {
		case event.Type == quorate.WatchEvent_TYPE_DELETE:
			word = "delete"
			delete(m.items, item.Key)
		case event.Created:
			word = "create"
		}
		if word != "delete" {
			m.items[item.Key] = item
		}
		fmt.Println(strings.TrimRight(fmt.Sprintf("%d %s %s %s", item.ModRevision, word, item.Key, item.GetText()), " "))
	}
}

// What one stream says, put into the mirror. Acts on whole revisions only: when the stream breaks within
// one, the next stream brings all of it.
type listener struct {
	*mirror
	inState bool                     // a state is being told
	state   map[string]*quorate.Item // of it
	events  []*quorate.WatchEvent    // of a revision that is being told
}

func (l *listener) hear(message *quorate.WatchResponse) error {
	header := message.Header
	switch {
	case l.cluster != "" && l.cluster != header.ClusterId:
		// Recovered from a lost quorum, or another one behind the same names.
		note("this is another cluster, %s: beginning anew", header.ClusterId)
		l.cluster, l.resume = "", 0
		return errNoMoreUse
	case message.Reset_:
		note("the history that was asked for is gone: the whole state follows")
		l.inState, l.state = true, map[string]*quorate.Item{}
	case message.Synced:
		l.items, l.inState = l.state, false
		fmt.Printf("synced %d items at revision %d\n", len(l.items), header.Revision)
		return l.save(message)
	case l.inState:
		for _, event := range message.Events {
			l.state[event.Item.Key] = event.Item
		}
	case len(message.Events) > 0 || len(l.events) > 0:
		l.events = append(l.events, message.Events...)
		if message.Partial {
			return nil
		}
		l.apply(l.events)
		l.events = nil
		return l.save(message)
	case message.LeaderLost && message.Progress:
		note("%s has had no leader for a while: asking another node", header.NodeId)
		return errNoMoreUse
	case message.LeaderLost:
		note("%s has lost its leader: changes may be late", header.NodeId)
	case message.LeaderFound:
		note("%s has a leader again", header.NodeId)
	case message.Progress:
		return l.save(message)
	}
	return nil
}

func watchOnce(ctx context.Context, s *session.Session, prefix string, m *mirror) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	request := &quorate.WatchRequest{Target: &quorate.WatchRequest_Prefix{Prefix: prefix},
		StartRevision: m.resume, WithInitialState: m.resume == 0, ProgressInterval: durationpb.New(progress)}
	stream, err := s.Config.Watch(ctx, request)
	if err != nil {
		return err
	}
	watchdog := time.AfterFunc(silence, cancel)
	defer watchdog.Stop()
	l := &listener{mirror: m, inState: request.WithInitialState, state: map[string]*quorate.Item{}}
	for {
		message, err := stream.Recv()
		if err != nil {
			return err
		}
		watchdog.Reset(silence)
		if err := l.hear(message); err != nil {
			return err
		}
	}
}

func main() {
	session.Main("watch TARGET PREFIX FILE", 3, func(ctx context.Context, s *session.Session, arguments []string) error {
		m, err := open(arguments[1])
		if err != nil {
			return err
		}
		for {
			err := watchOnce(ctx, s, arguments[0], m)
			if _, remote := status.FromError(err); !remote && err != errNoMoreUse {
				return err // the file cannot be written
			}
			switch status.Code(err) {
			case codes.InvalidArgument, codes.OutOfRange, codes.PermissionDenied, codes.Unauthenticated,
				codes.Unimplemented:
				return err
			}
			if err != errNoMoreUse {
				note("%v; going on at revision %d", err, m.resume)
			}
			time.Sleep(100 * time.Millisecond)
		}
	})
}
