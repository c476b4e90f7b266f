#include "services/page_pins.h"

#include <gtest/gtest.h>

namespace quorate::services {
namespace {

using std::chrono::minutes;

TEST(PagePins, TheOldestOfTheLastTenMinutesCounts) {
  PagePins pins;
  Instant now{minutes(1000)};
  EXPECT_FALSE(pins.Oldest(now));
  pins.Note(Revision(70), now);
  pins.Note(Revision(50), now);
  pins.Note(Revision(60), now);
  EXPECT_EQ(pins.Oldest(now), Revision(50));
  pins.Note(Revision(80), now + minutes(5));
  EXPECT_EQ(pins.Oldest(now + minutes(10)), Revision(50));
  EXPECT_EQ(pins.Oldest(now + minutes(11)), Revision(80)) << "ten minutes are over";
  EXPECT_FALSE(pins.Oldest(now + minutes(16)));
  // The place of a minute long past is used again.
  pins.Note(Revision(90), now + minutes(11));
  EXPECT_EQ(pins.Oldest(now + minutes(11)), Revision(80));
  EXPECT_EQ(pins.Oldest(now + minutes(17)), Revision(90));
}

}  // namespace
}  // namespace quorate::services
