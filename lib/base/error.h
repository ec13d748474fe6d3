#pragma once

#include <stdexcept>
#include <string>

namespace moelora {

// The one exception of this project: something could not be read, expressed or written.
//   where  what the user can point at: a path, "file: tensor", "file:line:column", a flag
//   what   what was found and what was expected, numbers included
//   hint   how to mend it, as an instruction; empty where no mend is known
// run_tool prints `TOOL: error: WHERE: WHAT` and, when there is one, `hint: HINT`.
class Error : public std::runtime_error {
 public:
  Error(std::string where, std::string what, std::string hint = {})
      : std::runtime_error(where.empty() ? what : where + ": " + what),
        where_(std::move(where)),
        text_(std::move(what)),
        hint_(std::move(hint)) {}

  const std::string& where() const { return where_; }
  const std::string& text() const { return text_; }
  const std::string& hint() const { return hint_; }

 private:
  std::string where_, text_, hint_;
};

}  // namespace moelora
