// Answers for python_regex_test.py. Reads lines of tab-separated hexadecimal: "full" or "key", an
// expression, paths. Prints per line "invalid", "unread", or a digit per path: 1 matches, 0 does
// not, ? could not be evaluated.

#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "lib/base/error.h"
#include "lib/base/regex/path_pattern.h"

namespace {

using namespace moelora;

std::vector<std::string> fields(const std::string& line) {
  std::vector<std::string> out;
  std::istringstream in(line);
  for (std::string field; std::getline(in, field, '\t');) out.push_back(field);
  return out;
}

std::string bytes(const std::string& hex) {
  std::string out;
  for (size_t i = 0; i + 1 < hex.size(); i += 2)
    out += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  return out;
}

char answer(const std::string& mode, const PythonRegex& whole, const std::string& text,
            const std::string& path) {
  try {
    if (mode == "full") return whole.fullmatch(path) ? '1' : '0';
    PathPatterns patterns;
    patterns.add(text);
    return patterns.first_match(path) ? '1' : '0';
  } catch (const Error&) {
    return '?';
  }
}

std::string answers(const std::vector<std::string>& row) {
  const std::string text = bytes(row.at(1));
  try {
    const PythonRegex whole(row[0] == "full" ? text : "(.*\\.)?(" + text + ")$");
    std::string out;
    for (size_t i = 2; i < row.size(); ++i) out += answer(row[0], whole, text, bytes(row[i]));
    return out;
  } catch (const Error& error) {
    return error.text().find("is not a valid") != std::string::npos ? "invalid" : "unread";
  }
}

}  // namespace

int main() {
  for (std::string line; std::getline(std::cin, line);) std::cout << answers(fields(line)) << '\n';
  return 0;
}
