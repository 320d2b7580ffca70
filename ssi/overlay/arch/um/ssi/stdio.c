// SPDX-License-Identifier: GPL-2.0
/*
 * The caller's standard streams as devices: /dev/pangea0, 1 and 2.
 *
 * A program in the machine must see the pipes, files and sockets of the shell that started it byte by byte:
 * no terminal between that turns \n into \r\n, eats ^D or loses what comes too fast.  Each stream that is
 * not a terminal is a character device over the host's descriptor of the same stream, named on the kernel's
 * command line: ssi_stdio=STDIN,STDOUT,STDERR, -1 for none.  End of file, back-pressure, poll and EPIPE are
 * the host's; nothing is read from the host before a reader asks for it.
 *
 * Data passes through a buffer of the stream, since a host system call must not meet a page of user
 * memory that is on another node.  Waiting: see stdio_user.c.  A sleeper arms the watcher and then looks
 * once more, so that what came in between is not missed; the interrupt wakes all sleepers, who arm again.
 */
#include <linux/fs.h>
#include <linux/init.h>
#include <linux/interrupt.h>
#include <linux/miscdevice.h>
#include <linux/mutex.h>
#include <linux/poll.h>
#include <linux/sched/signal.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/uio.h>
#include <linux/wait.h>
#include <init.h>
#include <irq_kern.h>
#include <irq_user.h>
#include <os.h>
#include "stdio_user.h"

#define BUFFER_SIZE SZ_32K

struct ssi_stream {
	struct miscdevice misc;
	int number;
	int fd;			/* the host's */
	enum ssi_stdio_kind kind;
	char name[16];
	void *buffer;
	struct mutex lock;	/* buffer */
	wait_queue_head_t wait;
	spinlock_t arm_lock;	/* the two below */
	bool armed;		/* the watcher will report, hang-up and errors at least */
	unsigned int events;	/* and these */
};

static struct ssi_stream streams[SSI_STDIO_STREAMS];
static int stream_fds[1 + SSI_STDIO_STREAMS] __initdata;
static int watcher_fd = -1;

static int __init stream_fds_setup(char *str)
{
	get_options(str, ARRAY_SIZE(stream_fds), stream_fds);
	return 1;
}
__setup("ssi_stdio=", stream_fds_setup);

static irqreturn_t stream_interrupt(int irq, void *data)
{
	unsigned char number;

	while (os_read_file(watcher_fd, &number, 1) == 1) {
		struct ssi_stream *s = &streams[number];

		spin_lock(&s->arm_lock);
		s->armed = false;
		s->events = 0;
		spin_unlock(&s->arm_lock);
		wake_up_interruptible(&s->wait);
	}
	return IRQ_HANDLED;
}

/* Which of the events hold; if none does, the stream's sleepers are woken when one will. */
static unsigned int stream_ready(struct ssi_stream *s, unsigned int events)
{
	unsigned long flags;

	if (s->kind == SSI_STDIO_DIRECT)
		return events;
	spin_lock_irqsave(&s->arm_lock, flags);
	if (!s->armed || (s->events & events) != events) {
		s->armed = true;
		s->events |= events;
		ssi_stdio_host_arm(s->number, s->fd, s->events);
	}
	spin_unlock_irqrestore(&s->arm_lock, flags);
	return ssi_stdio_host_poll(s->fd) & (events | EPOLLHUP | EPOLLERR);
}

static int stream_wait(struct ssi_stream *s, struct kiocb *iocb, unsigned int event)
{
	if ((iocb->ki_filp->f_flags & O_NONBLOCK) || (iocb->ki_flags & IOCB_NOWAIT))
		return -EAGAIN;
	return wait_event_interruptible(s->wait, stream_ready(s, event));
}

static struct ssi_stream *stream_of(struct kiocb *iocb)
{
	return container_of(iocb->ki_filp->private_data, struct ssi_stream, misc);
}

/* One read of the host into the buffer and on to the reader. */
static ssize_t stream_read_once(struct ssi_stream *s, struct iov_iter *to)
{
	size_t length = min_t(size_t, iov_iter_count(to), BUFFER_SIZE);
	ssize_t n;

	/* What the host gave cannot be given back: be sure that it can be stored. */
	if (fault_in_iov_iter_writeable(to, length))
		return -EFAULT;
	if (mutex_lock_interruptible(&s->lock))
		return -ERESTARTSYS;
	n = ssi_stdio_host_read(s->fd, s->kind, s->buffer, length);
	if (n > 0 && copy_to_iter(s->buffer, n, to) != n)
		n = -EFAULT;
	mutex_unlock(&s->lock);
	return n;
}

static ssize_t stream_read(struct kiocb *iocb, struct iov_iter *to)
{
	struct ssi_stream *s = stream_of(iocb);
	ssize_t n;

	if (!iov_iter_count(to))
		return 0;
	while ((n = stream_read_once(s, to)) == -EAGAIN) {
		n = stream_wait(s, iocb, SSI_STDIO_IN);
		if (n)
			break;
	}
	return n;
}

/* One write to the host; what it did not take stays in the iterator. */
static ssize_t stream_write_once(struct ssi_stream *s, struct iov_iter *from)
{
	size_t length = min_t(size_t, iov_iter_count(from), BUFFER_SIZE);
	ssize_t n;

	if (mutex_lock_interruptible(&s->lock))
		return -ERESTARTSYS;
	if (copy_from_iter(s->buffer, length, from) != length) {
		n = -EFAULT;
	} else {
		n = ssi_stdio_host_write(s->fd, s->kind, s->buffer, length);
		iov_iter_revert(from, length - max_t(ssize_t, n, 0));
	}
	mutex_unlock(&s->lock);
	return n;
}

static ssize_t stream_write(struct kiocb *iocb, struct iov_iter *from)
{
	struct ssi_stream *s = stream_of(iocb);
	ssize_t done = 0, n = 0;

	while (iov_iter_count(from)) {
		n = stream_write_once(s, from);
		if (n > 0) {
			done += n;
			continue;
		}
		if (n == -EAGAIN)
			n = stream_wait(s, iocb, SSI_STDIO_OUT);
		if (n)
			break;
	}
	if (n == -EPIPE)
		send_sig(SIGPIPE, current, 0);
	return done ?: n;
}

static __poll_t stream_poll(struct file *file, poll_table *table)
{
	struct ssi_stream *s = container_of(file->private_data, struct ssi_stream, misc);
	unsigned int events = SSI_STDIO_IN | SSI_STDIO_OUT;

	poll_wait(file, &s->wait, table);
	return (__force __poll_t)stream_ready(s, events & (__force unsigned int)poll_requested_events(table));
}

/*
 * A regular file can be sought in, which a shell relies on that reads more of its script than it executes.
 * The position is the host's, shared with whoever else has the file open there.
 */
static loff_t stream_seek(struct file *file, loff_t offset, int whence)
{
	struct ssi_stream *s = container_of(file->private_data, struct ssi_stream, misc);

	return ssi_stdio_host_seek(s->fd, offset, whence);
}

/* misc_open() has put the miscdevice into private_data. */
static int stream_open_device(struct inode *inode, struct file *file)
{
	struct ssi_stream *s = container_of(file->private_data, struct ssi_stream, misc);

	if (s->kind != SSI_STDIO_DIRECT)
		return stream_open(inode, file);
	file->f_mode &= ~(FMODE_PREAD | FMODE_PWRITE);
	return 0;
}

static const struct file_operations stream_fops = {
	.owner		= THIS_MODULE,
	.open		= stream_open_device,
	.llseek		= stream_seek,
	.read_iter	= stream_read,
	.write_iter	= stream_write,
	.poll		= stream_poll,
	.splice_read	= copy_splice_read,
	.splice_write	= iter_file_splice_write,
};

static int __init stream_init(struct ssi_stream *s, int number, int fd)
{
	int kind, err;

	s->number = number;
	s->fd = fd;
	mutex_init(&s->lock);
	init_waitqueue_head(&s->wait);
	spin_lock_init(&s->arm_lock);
	if (fd < 0)
		return 0;
	kind = ssi_stdio_host_add(number, fd);
	if (kind < 0)
		return kind;
	s->kind = kind;
	s->buffer = kmalloc(BUFFER_SIZE, GFP_KERNEL);
	if (!s->buffer)
		return -ENOMEM;
	snprintf(s->name, sizeof(s->name), "pangea%d", number);
	s->misc = (struct miscdevice) {
		.minor	= MISC_DYNAMIC_MINOR,
		.name	= s->name,
		.fops	= &stream_fops,
		.mode	= 0666,
	};
	err = misc_register(&s->misc);
	if (err)
		kfree(s->buffer);
	return err;
}

static int __init ssi_stdio_init(void)
{
	int i, err;

	if (stream_fds[0] != SSI_STDIO_STREAMS)
		return 0;
	watcher_fd = ssi_stdio_host_start();
	if (watcher_fd < 0)
		return watcher_fd;
	for (i = 0; i < SSI_STDIO_STREAMS; i++) {
		err = stream_init(&streams[i], i, stream_fds[1 + i]);
		if (err)
			pr_err("ssi: standard stream %d (descriptor %d): error %d\n",
			       i, stream_fds[1 + i], err);
	}
	err = um_request_irq(UM_IRQ_ALLOC, watcher_fd, IRQ_READ, stream_interrupt, 0, "ssi-stdio", streams);
	return err < 0 ? err : 0;
}
device_initcall(ssi_stdio_init);

static void ssi_stdio_exit(void)
{
	ssi_stdio_host_stop();
}
__uml_exitcall(ssi_stdio_exit);
