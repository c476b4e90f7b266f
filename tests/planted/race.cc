// Two threads, one counter, no lock: the thread sanitizer must name PlantedRace.
#include <cstdio>
#include <thread>

namespace {

int counter = 0;

__attribute__((noinline)) void PlantedRace() {
  for (int i = 0; i < 10000; ++i) counter = counter + 1;
}

}  // namespace

int main() {
  std::thread other(PlantedRace);
  PlantedRace();
  other.join();
  std::printf("counted %d and nobody objected\n", counter);
  return 0;
}
