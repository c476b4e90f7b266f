#include "services/links.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace quorate::services {
namespace {

using std::chrono::microseconds;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr StoreId kA{1}, kB{2}, kC{3}, kStranger{9};

raft::Membership Three() {
  raft::Membership membership;
  for (const auto& [store, name] : {std::pair(kA, "cp-0"), {kB, "cp-1"}, {kC, "cp-2"}}) {
    membership.members.push_back({.store = store, .name = name, .address = {}, .voter = true});
  }
  return membership;
}

class LinksTest : public testing::Test {
 protected:
  LinksTest() { links_.SetMembers(Three(), now_); }
  void Wait(Duration time) { now_ += time; }

  Instant now_{seconds(100)};
  Links links_{kA};
};

TEST_F(LinksTest, WhoAnswersIsReachedAndWhoDoesNotIsNotAfterAWhile) {
  EXPECT_THAT(links_.Own(now_), IsEmpty());
  links_.OnAnswer(kB, microseconds(400), {}, now_);
  EXPECT_THAT(links_.Own(now_), ElementsAre(Link{kB, true, microseconds(400)}))
      << "the other one has not had the time yet";
  Wait(Links::kFresh + seconds(1));
  EXPECT_THAT(links_.Own(now_), ElementsAre(Link{kB, false, {}}, Link{kC, false, {}}));
  links_.OnAnswer(kC, microseconds(900), {}, now_);
  EXPECT_THAT(links_.Own(now_),
              ElementsAre(Link{kB, false, {}}, Link{kC, true, microseconds(900)}));
}

TEST_F(LinksTest, OthersAreHeardOfBothWays) {
  links_.OnAnswer(kB, microseconds(400), {{kC, true, microseconds(7)}, {kA, true, {}}}, now_);
  links_.OnQuestion(kC, {{kB, false, {}}}, now_);
  const LinksByStore all = links_.All(now_);
  ASSERT_EQ(all.size(), 3u);
  EXPECT_THAT(all.at(kA), ElementsAre(Link{kB, true, microseconds(400)}));
  EXPECT_THAT(all.at(kB), ElementsAre(Link{kA, true, {}}, Link{kC, true, microseconds(7)}));
  EXPECT_THAT(all.at(kC), ElementsAre(Link{kB, false, {}}));
  // What they have said grows old.
  Wait(Links::kFresh + seconds(1));
  EXPECT_EQ(links_.All(now_).size(), 1u);
}

TEST_F(LinksTest, OneWayIsNamedOnce) {
  links_.OnAnswer(kB, microseconds(400), {{kA, false, {}}, {kC, true, {}}}, now_);
  links_.OnAnswer(kC, microseconds(400), {{kA, true, {}}, {kB, true, {}}}, now_);
  EXPECT_THAT(OneWayLinks(links_.All(now_), Three()),
              ElementsAre(HasSubstr("one-way link: cp-0 reaches cp-1, cp-1 does not reach cp-0")));
  // The other direction is heard of by a question only: this node reaches nobody there.
  Wait(Links::kFresh + seconds(1));
  links_.OnQuestion(kB, {{kA, true, {}}, {kC, false, {}}}, now_);
  EXPECT_THAT(OneWayLinks(links_.All(now_), Three()),
              ElementsAre(HasSubstr("one-way link: cp-1 reaches cp-0, cp-0 does not reach cp-1")));
  // Neither way: that is no one-way link.
  links_.OnQuestion(kB, {{kA, false, {}}}, now_);
  EXPECT_THAT(OneWayLinks(links_.All(now_), Three()), IsEmpty());
}

// --- Errors ---

TEST_F(LinksTest, StrangersAndWhatTheySayIsNotKept) {
  links_.OnAnswer(kStranger, microseconds(1), {{kB, true, {}}}, now_);
  links_.OnQuestion(kStranger, {{kB, true, {}}}, now_);
  links_.OnQuestion(kB, {{kStranger, true, {}}, {kC, true, {}}, {kC, false, {}}}, now_);
  const LinksByStore all = links_.All(now_);
  EXPECT_EQ(all.size(), 2u);
  EXPECT_EQ(all.at(kB).size(), 1u);
  // Nor of who is a member no more.
  raft::Membership two = Three();
  two.members.pop_back();
  links_.OnAnswer(kC, microseconds(1), {}, now_);
  links_.SetMembers(two, now_);
  EXPECT_THAT(links_.Own(now_), IsEmpty());
  EXPECT_THAT(OneWayLinks({}, Three()), IsEmpty());
}

}  // namespace
}  // namespace quorate::services
