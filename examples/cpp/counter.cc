// Adds to a number that many change at the same time: read, compute, write if it is still the same.
#include "client.h"

namespace example {
namespace {

// Returns how many tries it took.
int AddOne(Session& session, const std::string& key) {
  v1::TxnRequest read;
  read.add_then()->mutable_get()->set_key(key);
  session.Name(&read);
  v1::TxnResponse answer;
  session.Certainly(&v1::Config::Stub::Txn, read, &answer);
  for (int tries = 1;; ++tries) {
    const v1::Item& item = answer.results(0).get().item();
    // An absent item has mod_revision 0, so this also says "if it still does not exist". When
    // somebody was quicker the answer brings what is there now: no read is needed in between.
    v1::TxnRequest change;
    v1::Condition* same = change.add_conditions();
    same->set_key(key);
    same->set_comparison(v1::Condition::COMPARISON_EQUAL);
    same->set_mod_revision(item.mod_revision());
    v1::PutRequest* put = change.add_then()->mutable_put();
    put->set_key(key);
    put->set_text(std::to_string((item.text().empty() ? 0 : std::stoll(item.text())) + 1));
    change.add_else_()->mutable_get()->set_key(key);
    // A repeat after a lost answer gets the first answer: it neither adds twice nor takes its own
    // change for somebody else's.
    session.Name(&change);
    session.Certainly(&v1::Config::Stub::Txn, change, &answer);
    if (answer.succeeded()) return tries;
  }
}

int Counter(char** arguments) {
  Session session(Connect(arguments[0]));
  const int times = std::stoi(arguments[2]);
  int tries = 0;
  for (int i = 0; i < times; ++i) tries += AddOne(session, arguments[1]);
  std::cout << "added " << times << " in " << tries << " tries\n";
  return 0;
}

}  // namespace
}  // namespace example

int main(int argc, char** argv) {
  return example::Run(argc, argv, 3, "example_counter TARGET KEY TIMES", example::Counter);
}
