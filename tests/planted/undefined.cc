// A signed overflow: the undefined-behaviour sanitizer must stop it.
#include <cstdio>
#include <limits>

int main(int argc, char**) {
  int number = std::numeric_limits<int>::max();
  number += argc;
  std::printf("counted %d and nobody objected\n", number);
  return 0;
}
