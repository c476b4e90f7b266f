// A read one past the end of the heap: the address sanitizer must name PlantedOverflow.
#include <cstdio>
#include <memory>

namespace {

__attribute__((noinline)) int PlantedOverflow(const int* numbers, int count) {
  return numbers[count];
}

}  // namespace

int main(int argc, char**) {
  const int count = 3 + argc;
  const std::unique_ptr<int[]> numbers(new int[static_cast<size_t>(count)]());
  std::printf("read %d and nobody objected\n", PlantedOverflow(numbers.get(), count));
  return 0;
}
