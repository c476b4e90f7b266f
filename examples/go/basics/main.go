// Put, read your write at any node, linearizable reads, repeats, conditions and errors.
package main

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	quorate "quorate.example/quorate/v1"
	"quorate.example/session"
)

// A write with a name may be sent again, to any node, and is done once.
func write(ctx context.Context, s *session.Session, key string) error {
	id, revision, err := s.Name(ctx)
	if err != nil {
		return err
	}
	put := &quorate.PutRequest{Key: key, Value: &quorate.PutRequest_Text{Text: "blue"},
		Note: "a first colour", RequestId: id, RequestRevision: revision}
	first, err := s.Config.Put(ctx, put)
	if err != nil {
		return err
	}
	s.Saw(first)
	fmt.Printf("put: revision %d, version %d, by %s\n", first.Header.Revision, first.Version, first.Header.NodeId)
	again, err := s.Config.Put(ctx, put)
	if err != nil {
		return err
	}
	fmt.Printf("the same put again: revision %d, version %d\n", again.Header.Revision, again.Version)
	return nil
}

func read(ctx context.Context, s *session.Session, key string) error {
	// Reads are local to the node that takes them; MinRevision makes it wait for what we have seen.
	for range 3 {
		got, err := s.Config.Get(ctx, &quorate.GetRequest{Key: key, Read: s.Read()})
		if err != nil {
			return err
		}
		s.Saw(got)
		fmt.Printf("our own write: %s, by %s, at most %d ms old\n", got.Item.GetText(), got.Header.NodeId,
			got.Header.Staleness.Age.AsDuration().Milliseconds()+1)
	}
	// What others have written before this call, too: one round of messages to a majority.
	linearizable := s.Read()
	linearizable.Consistency = quorate.Consistency_CONSISTENCY_LINEARIZABLE
	got, err := s.Config.Get(ctx, &quorate.GetRequest{Key: key, Read: linearizable})
	if err != nil {
		return err
	}
	fmt.Printf("linearizable: %s\n", got.Item.GetText())
	return nil
}

// Only if nobody has changed it since: an error otherwise, with the current revision.
func replace(ctx context.Context, s *session.Session, key string) error {
	id, revision, err := s.Name(ctx)
	if err != nil {
		return err
	}
	_, err = s.Config.Put(ctx, &quorate.PutRequest{Key: key, Value: &quorate.PutRequest_Text{Text: "red"},
		ExpectedRevision: proto.Uint64(1), RequestId: id, RequestRevision: revision})
	if status.Code(err) != codes.Aborted {
		return fmt.Errorf("not refused: %w", err)
	}
	why, metadata := session.Reason(err)
	fmt.Printf("not replaced: ABORTED %s, it is at revision %s\n", why, metadata["current_revision"])
	return nil
}

// Several changes or none: a condition that does not hold is an answer, not an error.
func take(ctx context.Context, s *session.Session, key string) error {
	owner := key + "/owner"
	request := &quorate.TxnRequest{
		Conditions: []*quorate.Condition{{Key: owner, Comparison: quorate.Condition_COMPARISON_EQUAL,
			Target: &quorate.Condition_Version{Version: 0}}},
		Then: []*quorate.TxnOperation{
			{Operation: &quorate.TxnOperation_Put{Put: &quorate.PutRequest{Key: owner,
				Value: &quorate.PutRequest_Text{Text: "me"}}}},
			{Operation: &quorate.TxnOperation_Put{Put: &quorate.PutRequest{Key: key,
				Value: &quorate.PutRequest_Text{Text: "green"}}}},
		},
		Else: []*quorate.TxnOperation{
			{Operation: &quorate.TxnOperation_Get{Get: &quorate.GetRequest{Key: owner}}},
		},
	}
	for _, word := range []string{"taken", "taken again"} {
		var err error
		if request.RequestId, request.RequestRevision, err = s.Name(ctx); err != nil {
			return err
		}
		answer, err := s.Config.Txn(ctx, request)
		if err != nil {
			return err
		}
		s.Saw(answer)
		if answer.Succeeded {
			fmt.Printf("%s: true\n", word)
		} else {
			fmt.Printf("%s: false, it belongs to %s\n", word, answer.Results[0].GetGet().Item.GetText())
		}
	}
	return nil
}

func listAndDelete(ctx context.Context, s *session.Session, key string) error {
	page, err := s.Config.List(ctx, &quorate.ListRequest{Prefix: key, Read: s.Read()})
	if err != nil {
		return err
	}
	items := []string{}
	for _, item := range page.Items {
		items = append(items, item.Key+" = "+item.GetText())
	}
	fmt.Println("listed:", strings.Join(items, ", "))
	id, revision, err := s.Name(ctx)
	if err != nil {
		return err
	}
	deleted, err := s.Config.Delete(ctx, &quorate.DeleteRequest{
		Target: &quorate.DeleteRequest_Prefix{Prefix: key}, RequestId: id, RequestRevision: revision})
	if err != nil {
		return err
	}
	s.Saw(deleted)
	fmt.Println("deleted:", deleted.Deleted)
	_, err = s.Config.Get(ctx, &quorate.GetRequest{Key: key, Read: s.Read()})
	if status.Code(err) != codes.NotFound {
		return fmt.Errorf("not gone: %w", err)
	}
	why, _ := session.Reason(err)
	fmt.Println("gone: NOT_FOUND", why)
	return nil
}

func main() {
	session.Main("basics TARGET KEY", 2, func(ctx context.Context, s *session.Session, arguments []string) error {
		for _, part := range []func(context.Context, *session.Session, string) error{
			write, read, replace, take, listAndDelete} {
			if err := part(ctx, s, arguments[0]); err != nil {
				return err
			}
		}
		return nil
	})
}
