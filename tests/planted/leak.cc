// Memory that nobody points to at the end: the leak sanitizer must name PlantedLeak.
#include <cstdio>
#include <cstring>

namespace {

char* volatile kept = nullptr;

__attribute__((noinline)) void PlantedLeak(int size) {
  kept = new char[static_cast<size_t>(size)];
  std::memset(kept, 1, static_cast<size_t>(size));
  kept = nullptr;
}

}  // namespace

int main(int argc, char**) {
  for (int i = 0; i < 100; ++i) PlantedLeak(1000 + argc);
  std::printf("lost 100 pieces\n");
  return 0;
}
