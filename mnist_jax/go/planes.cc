// AlphaGo's planes of a position, and of every position of a game: what rules.py, ladders.py, eyes.py
// and planes.py do, move for move and in the same order, so that both give the same bits.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

constexpr int kLargest = 25 * 25;
constexpr int kPlanes = 48;
constexpr int kBytes = kPlanes / 8;
constexpr int kMost = 8;
constexpr int kMostMoves = 400;  // as in ladders.py
constexpr int kMostDepth = 100;

enum { kEmpty = 0, kBlack = 1, kWhite = 2 };
enum { kOccupied = 1, kSuicide = 2, kKo = 3, kNotOnBoard = 4 };
// The first plane of each feature.
enum {
  kOnes = 3,
  kTurnsSince = 4,
  kLiberties = 12,
  kCaptureSize = 20,
  kSelfAtari = 28,
  kLibertiesAfter = 36,
  kLadderCapture = 44,
  kLadderEscape = 45,
  kSensible = 46,
};

int Opponent(int color) { return kBlack + kWhite - color; }

struct Grid {
  int size, points;
  int16_t beside[kLargest][4], corners[kLargest][4];
  int8_t beside_count[kLargest], corner_count[kLargest];

  explicit Grid(int side) : size(side), points(side * side) {
    constexpr int kBeside[4][2] = {{-1, 0}, {0, -1}, {0, 1}, {1, 0}};
    constexpr int kCorners[4][2] = {{-1, -1}, {-1, 1}, {1, -1}, {1, 1}};
    for (int p = 0; p < points; ++p) {
      beside_count[p] = List(p, kBeside, beside[p]);
      corner_count[p] = List(p, kCorners, corners[p]);
    }
  }

  int8_t List(int p, const int steps[4][2], int16_t* out) const {
    int8_t count = 0;
    for (int i = 0; i < 4; ++i) {
      const int row = p / size + steps[i][0], column = p % size + steps[i][1];
      if (row >= 0 && row < size && column >= 0 && column < size) out[count++] = row * size + column;
    }
    return count;
  }
};

// Points each once, in the order they came in.
struct Points {
  int16_t at[kLargest];
  int count = 0;
  void Add(int p) { at[count++] = p; }
};

struct Chain {
  Points stones;
  Points liberties;
  int first;  // its smallest point
};

struct Board {
  const Grid* grid;
  uint8_t stones[kLargest];
  int to_play, ko;  // ko: -1 where there is none

  // The chain of the stone at a point, and its liberties.
  void Find(int point, Chain* chain) const {
    bool seen[kLargest] = {};
    const int color = stones[point];
    chain->stones.count = chain->liberties.count = 0;
    chain->stones.Add(point);
    chain->first = point;
    seen[point] = true;
    for (int i = 0; i < chain->stones.count; ++i) {
      const int p = chain->stones.at[i];
      for (int j = 0; j < grid->beside_count[p]; ++j) {
        const int b = grid->beside[p][j];
        if (seen[b]) continue;
        seen[b] = true;
        if (stones[b] == color) {
          chain->stones.Add(b);
          chain->first = std::min(chain->first, b);
        } else if (stones[b] == kEmpty) {
          chain->liberties.Add(b);
        }
      }
    }
  }

  // Plays there and gives 0, or gives the reason why not and is in no state to be used.
  // `own` becomes the chain played, `captured` how many stones were taken.
  int Play(int point, Chain* own, int* captured) {
    if (point < 0 || point >= grid->points) return kNotOnBoard;
    if (stones[point] != kEmpty) return kOccupied;
    const int color = to_play;
    stones[point] = color;
    int taken = 0, last = -1;
    Chain other;
    for (int j = 0; j < grid->beside_count[point]; ++j) {
      const int b = grid->beside[point][j];
      if (stones[b] != Opponent(color)) continue;
      Find(b, &other);
      if (other.liberties.count) continue;
      for (int i = 0; i < other.stones.count; ++i) stones[other.stones.at[i]] = kEmpty;
      taken += other.stones.count;
      last = other.stones.at[0];
    }
    if (point == ko && taken) return kKo;
    Find(point, own);
    if (!own->liberties.count) return kSuicide;
    const bool is_ko = taken == 1 && own->stones.count == 1 && own->liberties.count == 1;
    ko = is_ko ? last : -1;
    to_play = Opponent(color);
    *captured = taken;
    return 0;
  }
};

bool IsTrueEye(const Board& board, int point, int color, std::vector<int>* around) {
  const Grid& grid = *board.grid;
  if (board.stones[point] != kEmpty) return false;
  for (int j = 0; j < grid.beside_count[point]; ++j) {
    if (board.stones[grid.beside[point][j]] != color) return false;
  }
  const int allowed = grid.beside_count[point] == 4 ? 1 : 0;
  int bad = 0;
  for (int j = 0; j < grid.corner_count[point]; ++j) {
    const int corner = grid.corners[point][j];
    if (board.stones[corner] == Opponent(color)) {
      ++bad;
    } else if (board.stones[corner] == kEmpty &&
               std::find(around->begin(), around->end(), corner) == around->end()) {
      around->push_back(point);
      bad += !IsTrueEye(board, corner, color, around);
      around->pop_back();
    }
  }
  return bad <= allowed;
}

class Reader {
 public:
  // ladders.captures
  bool Captures(const Board& board, int point) {
    left_ = kMostMoves;
    std::vector<int> prey;
    const Grid& grid = *board.grid;
    Chain chain;
    for (int j = 0; j < grid.beside_count[point]; ++j) {
      const int b = grid.beside[point][j];
      if (board.stones[b] != Opponent(board.to_play)) continue;
      board.Find(b, &chain);
      if (chain.liberties.count == 2) prey.push_back(chain.first);
    }
    std::sort(prey.begin(), prey.end());
    prey.erase(std::unique(prey.begin(), prey.end()), prey.end());
    for (const int p : prey) {
      if (Captures(board, point, p, kMostDepth)) return true;
    }
    return false;
  }

  // ladders.escapes; `in_atari` are the own chains in atari, by their first points.
  bool Escapes(const Board& board, int point, const std::vector<int>& in_atari) {
    left_ = kMostMoves;
    for (const int own : in_atari) {
      const std::vector<int> ways = Rescues(board, own);
      if (std::find(ways.begin(), ways.end(), point) == ways.end()) continue;
      if (Escapes(board, point, own, kMostDepth)) return true;
    }
    return false;
  }

  static std::vector<int> Rescues(const Board& board, int prey) {
    const Grid& grid = *board.grid;
    Chain own, enemy;
    board.Find(prey, &own);
    std::vector<int> ways(own.liberties.at, own.liberties.at + own.liberties.count);
    const int hunter = Opponent(board.stones[prey]);
    bool seen[kLargest] = {};
    for (int i = 0; i < own.stones.count; ++i) {
      const int p = own.stones.at[i];
      for (int j = 0; j < grid.beside_count[p]; ++j) {
        const int b = grid.beside[p][j];
        if (board.stones[b] != hunter || seen[b]) continue;
        board.Find(b, &enemy);
        for (int k = 0; k < enemy.stones.count; ++k) seen[enemy.stones.at[k]] = true;
        if (enemy.liberties.count == 1) ways.push_back(enemy.liberties.at[0]);
      }
    }
    std::sort(ways.begin(), ways.end());
    ways.erase(std::unique(ways.begin(), ways.end()), ways.end());
    return ways;
  }

 private:
  bool Captures(const Board& board, int point, int prey, int depth) {
    Board after = board;
    if (!Try(&after, point, depth)) return false;
    for (const int way : Rescues(after, prey)) {
      if (Escapes(after, way, prey, depth - 1)) return false;
    }
    return true;
  }

  bool Escapes(const Board& board, int point, int prey, int depth) {
    Board after = board;
    if (!Try(&after, point, depth)) return left_ <= 0 || depth <= 0;
    Chain own;
    after.Find(prey, &own);
    if (own.liberties.count != 2) return own.liberties.count > 2;
    std::sort(own.liberties.at, own.liberties.at + 2);
    for (int i = 0; i < 2; ++i) {
      if (Captures(after, own.liberties.at[i], prey, depth - 1)) return false;
    }
    return true;
  }

  bool Try(Board* board, int point, int depth) {
    if (depth <= 0 || left_ <= 0) return false;
    --left_;
    Chain own;
    int captured;
    return board->Play(point, &own, &captured) == 0;
  }

  int left_ = 0;
};

void Set(uint8_t* bits, int plane) { bits[plane / 8] |= 1 << (plane % 8); }

void Describe(const Board& board, const int32_t* played, int turn, uint8_t* out) {
  const Grid& grid = *board.grid;
  std::memset(out, 0, grid.points * kBytes);
  std::vector<int> in_atari;
  bool seen[kLargest] = {};
  Chain chain;
  for (int p = 0; p < grid.points; ++p) {
    uint8_t* bits = out + p * kBytes;
    const int color = board.stones[p];
    Set(bits, kOnes);
    Set(bits, color == kEmpty ? 2 : color != board.to_play);
    if (color == kEmpty) continue;
    const int turns = played[p] ? turn - played[p] + 1 : kMost;
    Set(bits, kTurnsSince + std::min(turns, kMost) - 1);
    if (seen[p]) continue;
    board.Find(p, &chain);
    const int count = chain.liberties.count;
    for (int i = 0; i < chain.stones.count; ++i) {
      const int stone = chain.stones.at[i];
      seen[stone] = true;
      Set(out + stone * kBytes, kLiberties + std::min(count, kMost) - 1);
    }
    if (color == board.to_play && count == 1) in_atari.push_back(p);
  }
  Reader reader;
  std::vector<int> around;
  for (int p = 0; p < grid.points; ++p) {
    if (board.stones[p] != kEmpty) continue;
    Board after = board;
    int captured;
    if (after.Play(p, &chain, &captured)) continue;
    uint8_t* bits = out + p * kBytes;
    const int count = chain.liberties.count;
    Set(bits, kCaptureSize + std::min(captured, kMost - 1));
    if (count == 1) Set(bits, kSelfAtari + std::min(chain.stones.count, kMost) - 1);
    Set(bits, kLibertiesAfter + std::min(count, kMost) - 1);
    if (reader.Captures(board, p)) Set(bits, kLadderCapture);
    if (reader.Escapes(board, p, in_atari)) Set(bits, kLadderEscape);
    if (!IsTrueEye(board, p, board.to_play, &around)) Set(bits, kSensible);
  }
}

}  // namespace

// Plays a game and describes the position before each of its moves that is no pass.
//
// `colors` and `moves` [count]: who plays where; -1 is a pass. `stones` [size * size]: what is set
// up. `out` [moves that are no passes, size * size, 6]; null where it is only to be played. Gives 0,
// or 1 + the place of the first move that the rules forbid, with the reason in `reason`.
extern "C" int describe_game(int size, const uint8_t* stones, int count, const uint8_t* colors,
                             const int16_t* moves, uint8_t* out, int* reason) {
  const Grid grid(size);
  Board board;
  board.grid = &grid;
  std::memcpy(board.stones, stones, grid.points);
  board.ko = -1;
  std::vector<int32_t> played(grid.points, 0);
  Chain own;
  int captured;
  for (int i = 0; i < count; ++i) {
    board.to_play = colors[i];
    if (moves[i] < 0) {
      board.ko = -1;
      continue;
    }
    if (moves[i] >= grid.points || board.stones[moves[i]] != kEmpty) {
      *reason = moves[i] >= grid.points ? kNotOnBoard : kOccupied;
      return 1 + i;
    }
    if (out) {
      Describe(board, played.data(), i, out);
      out += grid.points * kBytes;
    }
    *reason = board.Play(moves[i], &own, &captured);
    if (*reason) return 1 + i;
    played[moves[i]] = i + 1;
  }
  return 0;
}

// Describes a position, as `rules.Position` has it: `stones` [size * size], `played` [size * size] in
// which turn each was, `ko` -1 where there is none, `out` [size * size, 6].
extern "C" void describe_position(int size, const uint8_t* stones, const int32_t* played, int to_play,
                                  int ko, int turn, uint8_t* out) {
  const Grid grid(size);
  Board board;
  board.grid = &grid;
  std::memcpy(board.stones, stones, grid.points);
  board.to_play = to_play;
  board.ko = ko;
  Describe(board, played, turn, out);
}
