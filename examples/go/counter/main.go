// Adds to a number that many change at the same time: read, compute, write if it is still the same.
package main

import (
	"context"
	"fmt"
	"strconv"

	quorate "quorate.example/quorate/v1"
	"quorate.example/session"
)

func txn(ctx context.Context, s *session.Session, request *quorate.TxnRequest) (*quorate.TxnResponse, error) {
	var err error
	if request.RequestId, request.RequestRevision, err = s.Name(ctx); err != nil {
		return nil, err
	}
	return session.Certainly(ctx, s, s.Config.Txn, request)
}

// Returns how many tries it took.
func addOne(ctx context.Context, s *session.Session, key string) (int, error) {
	get := &quorate.TxnOperation{Operation: &quorate.TxnOperation_Get{Get: &quorate.GetRequest{Key: key}}}
	answer, err := txn(ctx, s, &quorate.TxnRequest{Then: []*quorate.TxnOperation{get}})
	if err != nil {
		return 0, err
	}
	for tries := 1; ; tries++ {
		item := answer.Results[0].GetGet().Item
		number := 0
		if item != nil {
			if number, err = strconv.Atoi(item.GetText()); err != nil {
				return tries, err
			}
		}
		// An absent item has mod_revision 0, so this also says "if it still does not exist". When
		// somebody was quicker the answer brings what is there now: no read is needed in between.
		//
		// A repeat after a lost answer gets the first answer: it neither adds twice nor takes its own
		// change for somebody else's.
		answer, err = txn(ctx, s, &quorate.TxnRequest{
			Conditions: []*quorate.Condition{{Key: key, Comparison: quorate.Condition_COMPARISON_EQUAL,
				Target: &quorate.Condition_ModRevision{ModRevision: item.GetModRevision()}}},
			Then: []*quorate.TxnOperation{{Operation: &quorate.TxnOperation_Put{Put: &quorate.PutRequest{
				Key: key, Value: &quorate.PutRequest_Text{Text: strconv.Itoa(number + 1)}}}}},
			Else: []*quorate.TxnOperation{get},
		})
		if err != nil || answer.Succeeded {
			return tries, err
		}
	}
}

func main() {
	session.Main("counter TARGET KEY TIMES", 3, func(ctx context.Context, s *session.Session, arguments []string) error {
		times, err := strconv.Atoi(arguments[1])
		if err != nil {
			return err
		}
		total := 0
		for range times {
			tries, err := addOne(ctx, s, arguments[0])
			if err != nil {
				return err
			}
			total += tries
		}
		fmt.Printf("added %d in %d tries\n", times, total)
		return nil
	})
}
