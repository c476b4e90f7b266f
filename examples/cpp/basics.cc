// Put, read your write at any node, linearizable reads, repeats, conditions and errors.
#include "client.h"

namespace example {
namespace {

void Must(const grpc::Status& status) {
  if (!status.ok()) throw Failure(status);
}

// A write with a name may be sent again, to any node, and is done once.
void Write(Session& session, const std::string& key) {
  v1::PutRequest put;
  put.set_key(key);
  put.set_text("blue");
  put.set_note("a first colour");
  session.Name(&put);
  v1::PutResponse done;
  Must(session.Call(&v1::Config::Stub::Put, put, &done));
  std::cout << "put: revision " << done.header().revision() << ", version " << done.version()
            << ", by " << done.header().node_id() << '\n';
  Must(session.Call(&v1::Config::Stub::Put, put, &done));
  std::cout << "the same put again: revision " << done.header().revision() << ", version "
            << done.version() << '\n';
}

void Read(Session& session, const std::string& key) {
  v1::GetRequest get;
  get.set_key(key);
  v1::GetResponse got;
  // Reads are local to the node that takes them; min_revision makes it wait for what we have seen.
  for (int i = 0; i < 3; ++i) {
    *get.mutable_read() = session.Read();
    Must(session.Call(&v1::Config::Stub::Get, get, &got));
    const auto& age = got.header().staleness().age();
    std::cout << "our own write: " << got.item().text() << ", by " << got.header().node_id()
              << ", at most " << age.seconds() * 1000 + age.nanos() / 1'000'000 + 1 << " ms old\n";
  }
  // What others have written before this call, too: one round of messages to a majority.
  get.mutable_read()->set_consistency(v1::CONSISTENCY_LINEARIZABLE);
  Must(session.Call(&v1::Config::Stub::Get, get, &got));
  std::cout << "linearizable: " << got.item().text() << '\n';
}

// Only if nobody has changed it since: an error otherwise, with the current revision.
void Replace(Session& session, const std::string& key) {
  v1::PutRequest put;
  put.set_key(key);
  put.set_text("red");
  put.set_expected_revision(1);
  session.Name(&put);
  v1::PutResponse done;
  const grpc::Status status = session.Call(&v1::Config::Stub::Put, put, &done);
  Reason why = ReasonOf(status);
  if (status.error_code() != grpc::StatusCode::ABORTED) throw Failure(status);
  std::cout << "not replaced: ABORTED " << why.reason << ", it is at revision "
            << why.metadata["current_revision"] << '\n';
}

// Several changes or none: a condition that does not hold is an answer, not an error.
void Take(Session& session, const std::string& key) {
  v1::TxnRequest take;
  v1::Condition* absent = take.add_conditions();
  absent->set_key(key + "/owner");
  absent->set_comparison(v1::Condition::COMPARISON_EQUAL);
  absent->set_version(0);
  v1::PutRequest* owner = take.add_then()->mutable_put();
  owner->set_key(key + "/owner");
  owner->set_text("me");
  v1::PutRequest* color = take.add_then()->mutable_put();
  color->set_key(key);
  color->set_text("green");
  take.add_else_()->mutable_get()->set_key(key + "/owner");
  session.Name(&take);
  v1::TxnResponse done;
  Must(session.Call(&v1::Config::Stub::Txn, take, &done));
  std::cout << "taken: " << std::boolalpha << done.succeeded() << '\n';
  session.Name(&take);  // another try, not a repeat
  Must(session.Call(&v1::Config::Stub::Txn, take, &done));
  std::cout << "taken again: " << done.succeeded() << ", it belongs to "
            << done.results(0).get().item().text() << '\n';
}

void ListAndDelete(Session& session, const std::string& key) {
  v1::ListRequest list;
  list.set_prefix(key);
  *list.mutable_read() = session.Read();
  v1::ListResponse page;
  Must(session.Call(&v1::Config::Stub::List, list, &page));
  std::cout << "listed: ";
  for (int i = 0; i < page.items_size(); ++i) {
    std::cout << (i == 0 ? "" : ", ") << page.items(i).key() << " = " << page.items(i).text();
  }
  std::cout << '\n';
  v1::DeleteRequest remove;
  remove.set_prefix(key);
  session.Name(&remove);
  v1::DeleteResponse done;
  Must(session.Call(&v1::Config::Stub::Delete, remove, &done));
  std::cout << "deleted: " << done.deleted() << '\n';
  v1::GetRequest get;
  get.set_key(key);
  *get.mutable_read() = session.Read();
  v1::GetResponse got;
  const grpc::Status status = session.Call(&v1::Config::Stub::Get, get, &got);
  if (status.error_code() != grpc::StatusCode::NOT_FOUND) throw Failure(status);
  std::cout << "gone: NOT_FOUND " << ReasonOf(status).reason << '\n';
}

int Basics(char** arguments) {
  Session session(Connect(arguments[0]));
  const std::string key = arguments[1];
  Write(session, key);
  Read(session, key);
  Replace(session, key);
  Take(session, key);
  ListAndDelete(session, key);
  return 0;
}

}  // namespace
}  // namespace example

int main(int argc, char** argv) {
  return example::Run(argc, argv, 2, "example_basics TARGET KEY", example::Basics);
}
