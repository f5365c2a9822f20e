import io.grpc.BindableService;
import io.grpc.CallOptions;
import io.grpc.ClientCall;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.MethodDescriptor;
import io.grpc.MethodDescriptor.MethodType;
import io.grpc.Server;
import io.grpc.ServerServiceDefinition;
import io.grpc.netty.shaded.io.grpc.netty.NettyServerBuilder;
import io.grpc.stub.ClientCalls;
import io.grpc.stub.ServerCallStreamObserver;
import io.grpc.stub.ServerCalls;
import io.grpc.stub.StreamObserver;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.net.InetSocketAddress;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;

/** The same client and server as ../../../../go/main.go, with every default of grpc-java: server ADDRESS | client TARGET PATTERN RATE SECONDS */
final class Judge {
  private static final MethodDescriptor.Marshaller<byte[]> BYTES =
      new MethodDescriptor.Marshaller<>() {
        @Override
        public InputStream stream(byte[] value) {
          return new ByteArrayInputStream(value);
        }

        @Override
        public byte[] parse(InputStream stream) {
          try {
            return stream.readAllBytes();
          } catch (IOException e) {
            throw new UncheckedIOException(e);
          }
        }
      };

  private static MethodDescriptor<byte[], byte[]> method(String name, MethodType type) {
    return MethodDescriptor.newBuilder(BYTES, BYTES).setFullMethodName("judge.Judge/" + name).setType(type).build();
  }

  private static final MethodDescriptor<byte[], byte[]> UNARY = method("Unary", MethodType.UNARY);
  private static final MethodDescriptor<byte[], byte[]> FEED = method("Feed", MethodType.SERVER_STREAMING);
  private static final MethodDescriptor<byte[], byte[]> BOTH = method("Both", MethodType.BIDI_STREAMING);
  private static final MethodDescriptor<byte[], byte[]> WATCH = method("Watch", MethodType.SERVER_STREAMING);

  public static void main(String[] words) throws Exception {
    if (words[0].equals("server")) {
      serve(words[1]);
      return;
    }
    int rate = Integer.parseInt(words[3]);
    double seconds = Double.parseDouble(words[4]);
    long begin = System.nanoTime();
    try {
      int n = new Client(words[1]).run(words[2], rate, (int) (rate * seconds));
      System.out.printf("OK %d in %.1f s%n", n, (System.nanoTime() - begin) / 1e9);
      System.exit(0);
    } catch (Exception e) {
      System.out.println("FAILED " + e);
      System.exit(1);
    }
  }

  /** Waits until n messages may have gone at this rate; 0 is as fast as it goes. */
  private static void pace(long begin, long n, int rate) {
    if (rate > 0) {
      try {
        TimeUnit.NANOSECONDS.sleep(begin + n * 1_000_000_000L / rate - System.nanoTime());
      } catch (InterruptedException e) {
        throw new IllegalStateException(e);
      }
    }
  }

  private static void serve(String address) throws Exception {
    String[] parts = address.split(":");
    BindableService service =
        () ->
            ServerServiceDefinition.builder("judge.Judge")
                .addMethod(
                    UNARY,
                    ServerCalls.asyncUnaryCall(
                        (message, answer) -> {
                          answer.onNext(message);
                          answer.onCompleted();
                        }))
                .addMethod(FEED, ServerCalls.asyncServerStreamingCall(Judge::feed))
                .addMethod(BOTH, ServerCalls.asyncBidiStreamingCall(Judge::both))
                .addMethod(
                    WATCH, ServerCalls.asyncServerStreamingCall((message, answer) -> answer.onNext(new byte[1])))
                .build();
    Server server =
        NettyServerBuilder.forAddress(new InetSocketAddress(parts[0], Integer.parseInt(parts[1])))
            .addService(service)
            .build()
            .start();
    System.out.println("ready");
    server.awaitTermination();
  }

  private static void feed(byte[] asked, StreamObserver<byte[]> answer) {
    String[] numbers = new String(asked).split(" ");
    int rate = Integer.parseInt(numbers[0]);
    int count = Integer.parseInt(numbers[1]);
    byte[] message = new byte[Integer.parseInt(numbers[2])];
    ServerCallStreamObserver<byte[]> call = (ServerCallStreamObserver<byte[]>) answer;
    call.setOnCancelHandler(() -> {});
    long begin = System.nanoTime();
    for (int n = 1; n <= count && !call.isCancelled(); n++) {
      call.onNext(message);
      pace(begin, n, rate);
    }
    if (!call.isCancelled()) {
      call.onCompleted();
    }
  }

  private static StreamObserver<byte[]> both(StreamObserver<byte[]> answer) {
    return new StreamObserver<>() {
      @Override
      public void onNext(byte[] message) {
        answer.onNext(message);
      }

      @Override
      public void onError(Throwable error) {}

      @Override
      public void onCompleted() {
        answer.onCompleted();
      }
    };
  }

  private static final class Client {
    private final ManagedChannel channel;

    Client(String target) {
      channel = ManagedChannelBuilder.forTarget(target).usePlaintext().build();
    }

    int run(String pattern, int rate, int count) throws Exception {
      return switch (pattern) {
        case "unary" -> unary(rate, count);
        case "feed" -> feed(rate, count, 1000);
        case "burst" -> feed(0, rate, 10);
        case "both" -> both(rate, count);
        case "cancel" -> cancel(rate, count);
        default -> throw new IllegalArgumentException(pattern);
      };
    }

    private <T> ClientCall<byte[], byte[]> open(MethodDescriptor<byte[], byte[]> method) {
      return channel.newCall(method, CallOptions.DEFAULT);
    }

    private Future<byte[]> call(byte[] message) {
      CallOptions options = CallOptions.DEFAULT.withDeadlineAfter(60, TimeUnit.SECONDS);
      return ClientCalls.futureUnaryCall(channel.newCall(UNARY, options), message);
    }

    private int unary(int rate, int count) throws Exception {
      List<Future<byte[]>> calls = new ArrayList<>();
      long begin = System.nanoTime();
      for (int n = 1; n <= count; n++) {
        calls.add(call(new byte[1000]));
        pace(begin, n, rate);
      }
      for (Future<byte[]> call : calls) {
        call.get();
      }
      return count;
    }

    private int feed(int rate, int count, int size) {
      byte[] ask = (rate + " " + count + " " + size).getBytes();
      Iterator<byte[]> messages = ClientCalls.blockingServerStreamingCall(open(FEED), ask);
      int n = 0;
      for (; messages.hasNext(); n++) {
        messages.next();
      }
      return all(n, count);
    }

    private static int all(int n, int count) {
      if (n != count) {
        throw new IllegalStateException(n + " of " + count);
      }
      return n;
    }

    private int both(int rate, int count) throws Exception {
      AtomicInteger got = new AtomicInteger();
      AtomicReference<Throwable> failed = new AtomicReference<>();
      CountDownLatch done = new CountDownLatch(1);
      StreamObserver<byte[]> out =
          ClientCalls.asyncBidiStreamingCall(
              open(BOTH),
              new StreamObserver<>() {
                @Override
                public void onNext(byte[] message) {
                  got.incrementAndGet();
                }

                @Override
                public void onError(Throwable error) {
                  failed.set(error);
                  done.countDown();
                }

                @Override
                public void onCompleted() {
                  done.countDown();
                }
              });
      long begin = System.nanoTime();
      for (int n = 1; n <= count; n++) {
        out.onNext(new byte[100]);
        pace(begin, n, rate);
      }
      out.onCompleted();
      done.await();
      if (failed.get() != null) {
        throw new IllegalStateException("after " + got + " of " + count, failed.get());
      }
      return all(got.get(), count);
    }

    /** Three of four calls are given up: two after their first message, one before it. A quiet stream must not notice. */
    private int cancel(int rate, int count) throws Exception {
      Iterator<byte[]> quiet = ClientCalls.blockingServerStreamingCall(open(WATCH), new byte[0]);
      quiet.next();
      AtomicReference<Throwable> ended = new AtomicReference<>();
      Thread waits =
          new Thread(
              () -> {
                try {
                  quiet.hasNext();
                  ended.set(new IllegalStateException("an end"));
                } catch (RuntimeException e) {
                  ended.set(e);
                }
              });
      waits.setDaemon(true);
      waits.start();
      long begin = System.nanoTime();
      for (int n = 0; n < count; n++) {
        if (n % 4 == 0) {
          call(new byte[] {'x'}).get();
        } else {
          ClientCall<byte[], byte[]> call = open(WATCH);
          Iterator<byte[]> messages = ClientCalls.blockingServerStreamingCall(call, new byte[0]);
          if (n % 4 != 1) {
            messages.next();
          }
          call.cancel("given up", null);
        }
        if (ended.get() != null) {
          throw new IllegalStateException("the quiet stream ended", ended.get());
        }
        pace(begin, n + 1, rate);
      }
      return count;
    }
  }
}
